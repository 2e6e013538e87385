"""The API pages: the OpenAPI document and Swagger UI at /api, assets served by us.

The assets come with the swagger-ui-py package; the page holds no inline script, so a strict content
security policy can apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPI,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
    Tag,
)
from litestar.params import PathParameter

from service import __version__
from service.web.principal import PUBLIC, needs
from service.web.problems import CONTENT_TYPE, Problem

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

_ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}

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


def an_object(title: str | None = None, /, **properties: Schema) -> Schema:
    """Describe a JSON object; the names are as they stand in the answer."""
    return Schema(type=OpenAPIType.OBJECT, title=title, properties=dict(properties))


def an_array(items: Schema) -> Schema:
    """Describe a JSON array."""
    return Schema(type=OpenAPIType.ARRAY, items=items)


def or_null(schema: Schema) -> Schema:
    """Describe a value that may be absent."""
    return Schema(one_of=[schema, Schema(type=OpenAPIType.NULL)])


def one_of(*values: str) -> Schema:
    """Describe a text that is one of some words."""
    return Schema(type=OpenAPIType.STRING, enum=list(values))


STRING: Final = Schema(type=OpenAPIType.STRING)
NUMBER: Final = Schema(type=OpenAPIType.NUMBER)
COUNT: Final = Schema(type=OpenAPIType.INTEGER, minimum=0)
BOOLEAN: Final = Schema(type=OpenAPIType.BOOLEAN)
TIME: Final = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)
BAD_PARAMETER: Final = problem("A parameter is not valid")
UNKNOWN_DEVICE: Final = problem("Nobody ever heard of this device")
DATABASE_AWAY: Final = problem("The database is away: try again after Retry-After seconds")
# Of a body in JSON that did not get so far as to be understood.
UNREAD: Final = {
    "408": problem("The body did not arrive in time"),
    "413": problem("The body is too large"),
    "415": problem("The body is not JSON, or in an encoding other than gzip"),
}
_OF_KEYS: Final = {
    "401": problem("No key, or not a good one (missing_key, bad_key, revoked_key, expired_key)"),
    "403": problem("The key lacks the scope, or is bound to other devices"),
    "429": problem("Too many requests: come back after Retry-After seconds"),
    "503": DATABASE_AWAY,
}


def operation(responses: dict[str, OpenAPIResponse], body: RequestBody | None = None) -> type[Operation]:
    """Make the class that the framework wants in order to describe one operation by hand."""

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.responses = dict(responses)
            if body is not None:
                self.request_body = body

    return Described


_ID: Final = Schema(type=OpenAPIType.STRING, pattern=r"^[A-Za-z0-9._:\-]+$", min_length=1, max_length=64)
# By name, since a name means the same on every route. Their handlers read them as text, to say what is wrong.
_PARAMETERS: Final = {
    **dict.fromkeys(("vehicleId", "meterId", "sessionId"), _ID),
    **dict.fromkeys(("from", "to", "since", "before"), TIME),
    **dict.fromkeys(("atomic", "open"), BOOLEAN),
    "limit": Schema(type=OpenAPIType.INTEGER, minimum=1),
    "letterId": Schema(type=OpenAPIType.INTEGER, minimum=1),
    "leastKwh": Schema(type=OpenAPIType.NUMBER, minimum=0),
    "socBelow": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=100),
}


def describe_parameters(document: OpenAPI) -> None:
    """Say of each parameter what it must look like."""
    for item in (document.paths or {}).values():
        for described in (item.get, item.post, item.put, item.patch, item.delete):
            for parameter in (described and described.parameters) or ():
                if isinstance(parameter, Parameter):
                    # None of them may be null: what is absent is left out.
                    parameter.schema = _PARAMETERS.get(parameter.name, STRING)


def tell_what_keys_answer(document: OpenAPI) -> None:
    """Add to each operation that asks for a key what it answers where that is not good."""
    for item in (document.paths or {}).values():
        for described in (item.get, item.post, item.put, item.patch, item.delete):
            if described is not None and described.security:
                described.responses = {**_OF_KEYS, **(described.responses or {})}


class _SwaggerPage(OpenAPIRenderPlugin):
    """Serves our page instead of the framework's, which loads its scripts from elsewhere."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """Give the page; the document itself is fetched by it."""
        return _PAGE


# Not cached by the framework: it keeps an answer for each query string, so anybody could fill the memory.
@get("/api/start.js", media_type="text/javascript", include_in_schema=False, opt=needs(PUBLIC))
async def start_script() -> Response[bytes]:
    """Give the few lines that start Swagger UI."""
    return Response(content=_START, media_type="text/javascript")


def config() -> OpenAPIConfig:
    """Give the framework what stands at the head of the OpenAPI document."""
    return OpenAPIConfig(
        title="fleetwatt",
        version=__version__,
        description="Energy telemetry for EV fleets: billed AC against delivered DC.",
        openapi_router=Router("/api", route_handlers=[], include_in_schema=False, opt=needs(PUBLIC)),
        components=Components(
            security_schemes={
                "apiKey": SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="A key such as fw_...; a service on loopback without keys asks for none",
                ),
                "apiKeyHeader": SecurityScheme(
                    type="apiKey",
                    name="X-API-Key",
                    security_scheme_in="header",
                    description="The same key in a header of its own",
                ),
            }
        ),
        render_plugins=[_SwaggerPage()],
        use_handler_docstrings=True,
        tags=[
            Tag(name="Ingest", description="Readings go in; a 2xx answer means committed"),
            Tag(name="Analytics", description="Latest states, energy and efficiency"),
            Tag(name="Sessions", description="Which vehicle drew from which meter, and when"),
            Tag(name="Dead letters", description="What was refused, and trying it again"),
            Tag(name="Health", description="Probes and metrics"),
        ],
    )


@get("/api/assets/{name:str}", include_in_schema=False, opt=needs(PUBLIC))
async def asset(name: Annotated[str, PathParameter(name="name")]) -> Response[bytes]:
    """Give one of the two files that the page loads."""
    media_type = _ASSETS.get(name)
    if media_type is None:
        raise Problem(404, "not_found", "there is no such file")
    return Response(
        content=_read_asset(name), media_type=media_type, headers={"Cache-Control": "max-age=86400"}
    )


@cache
def _read_asset(name: str) -> bytes:
    return (files("swagger_ui") / "static" / name).read_bytes()


def routes() -> list[Any]:
    """Give the handlers of the page's own assets."""
    return [start_script, asset]
