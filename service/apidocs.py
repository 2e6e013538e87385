"""The API pages: the OpenAPI document and Swagger UI at /api, assets served by us.

The assets come with the swagger-ui-py package; the page holds no inline script, so a strict content
security policy can apply.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, Router, get
from litestar.config.response_cache import CACHE_FOREVER
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Schema, Tag
from litestar.static_files import create_static_files_router

from service import __version__
from service.problems import CONTENT_TYPE

_PAGE: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fleetwatt API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/api/assets/swagger-ui.css">
</head>
<body>
<div id="swagger"></div>
<script src="/api/assets/swagger-ui-bundle.js"></script>
<script src="/api/start.js"></script>
</body>
</html>
"""
_START: Final = b"""SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""

PROBLEM: Final = Schema(
    type=OpenAPIType.OBJECT,
    title="Problem",
    description="RFC 9457 problem details",
    properties={
        "type": Schema(type=OpenAPIType.STRING, description="Stable: urn:fleetwatt:problem:<code>"),
        "title": Schema(type=OpenAPIType.STRING),
        "status": Schema(type=OpenAPIType.INTEGER),
        "detail": Schema(type=OpenAPIType.STRING),
        "code": Schema(type=OpenAPIType.STRING),
        "field": Schema(type=OpenAPIType.STRING, description="The field to blame, if there is one"),
    },
    required=["type", "title", "status", "detail", "code"],
)


def problem(description: str) -> OpenAPIResponse:
    """Describe an error answer."""
    return OpenAPIResponse(description=description, content={CONTENT_TYPE: OpenAPIMediaType(schema=PROBLEM)})


def json_answer(schema: Schema, description: str) -> OpenAPIResponse:
    """Describe an answer in JSON."""
    return OpenAPIResponse(
        description=description, content={"application/json": OpenAPIMediaType(schema=schema)}
    )


class _SwaggerPage(OpenAPIRenderPlugin):
    """Serves our page instead of the framework's, which loads its scripts from elsewhere."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """Give the page; the document itself is fetched by it."""
        return _PAGE


@get("/api/start.js", media_type="text/javascript", include_in_schema=False, cache=CACHE_FOREVER)
async def start_script() -> Response[bytes]:
    """Give the few lines that start Swagger UI."""
    return Response(content=_START, media_type="text/javascript")


def config() -> OpenAPIConfig:
    """Give the framework what stands at the head of the OpenAPI document."""
    return OpenAPIConfig(
        title="fleetwatt",
        version=__version__,
        description="Energy telemetry for EV fleets: billed AC against delivered DC.",
        path="/api",
        render_plugins=[_SwaggerPage()],
        tags=[
            Tag(name="Ingest", description="Readings go in; a 2xx answer means committed"),
            Tag(name="Analytics", description="Latest states, energy and efficiency"),
            Tag(name="Sessions", description="Which vehicle drew from which meter, and when"),
            Tag(name="Health", description="Probes and metrics"),
        ],
    )


def routes() -> list[Any]:
    """Give the handlers of the page's own assets."""
    assets = Path(str(files("swagger_ui") / "static"))
    static = create_static_files_router(path="/api/assets", directories=[assets], include_in_schema=False)
    router: Router = static
    return [start_script, router]
