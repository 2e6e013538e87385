"""The API pages: the OpenAPI document and Swagger UI at /api, assets served by us.

The assets come with the swagger-ui-py package; the page holds no inline script, so a strict content
security policy can apply.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, Router, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.params import PathParameter

from service import __version__
from service.web import apiexamples
from service.web.principal import PUBLIC, needs
from service.web.problems import Problem

_PAGE: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>fleetwatt API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/api/assets/swagger-ui.css">
<link rel="stylesheet" href="/api/assets/page.css">
</head>
<body>
<nav aria-label="Pages">
<a href="/">fleetwatt</a> <a href="/alerts">Alerts</a> <a href="/engine">Engine</a>
<h1>API</h1> <a href="/api/openapi.json">openapi.json</a>
</nav>
<main id="swagger"></main>
<script src="/api/assets/swagger-ui-bundle.js"></script>
<script src="/api/start.js"></script>
</body>
</html>
"""
# Where Swagger UI leaves out readers of screens: it draws a link within each button (addresses of operations
# work without it), and what has no name.
_START: Final = b"""SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  plugins: [() => ({
    wrapComponents: {
      DeepLink: (Link, system) => (props) => system.React.createElement(Link, { ...props, enabled: false }),
    },
  })],
  tryItOutEnabled: true,
  validatorUrl: null,
});
new MutationObserver(() => {
  for (const field of document.querySelectorAll("#swagger :is(textarea, select):not([aria-label])")) {
    const parameter = field.closest("[data-param-name]");
    field.ariaLabel = parameter ? parameter.dataset.paramName : "body, its type or an example";
  }
  for (const button of document.querySelectorAll("#swagger .copy-to-clipboard button:not([aria-label])")) {
    button.ariaLabel = "copy";
  }
}).observe(document.getElementById("swagger"), { childList: true, subtree: true });
"""
# Swagger UI has one colour scheme, with less contrast than many people need. The dark one is that turned
# round, hues kept; what is dark in it already stays.
_STYLE: Final = b"""body { margin: 0; background: #fff; color: #1d2733; }
nav { font: 16px/1 system-ui, sans-serif; padding: 14px 20px; border-bottom: 1px solid #d5dbe1; }
nav > * { display: inline; font: inherit; margin-right: 16px; }
nav h1 { font-weight: bold; }
nav a { color: #0b5cad; }
.swagger-ui { background: #fff; }
.swagger-ui .info { margin: 24px 0; }
.swagger-ui .info .link, .swagger-ui .servers-title, .swagger-ui .servers { display: none; }
.swagger-ui .info .title small { background: #59606d; }
.swagger-ui .info .title small.version-stamp { background: #3d5c00; }
.swagger-ui .scheme-container { background: none; box-shadow: none; padding: 0 0 12px; }
.swagger-ui .btn.authorize { color: #17703f; border-color: #17703f; }
.swagger-ui .btn.authorize svg { fill: #17703f; }
.swagger-ui .btn.execute { background: #1f62b8; border-color: #1f62b8; }
.swagger-ui .btn.cancel { color: #c01818; border-color: #c01818; }
.swagger-ui .opblock .opblock-summary-method { color: #000; text-shadow: none; }
.swagger-ui .parameter__in, .swagger-ui .prop-format { color: #5c5c5c; }
.swagger-ui .download-contents { background: #3b4151; }
.swagger-ui .microlight { background: #171717 !important; }
@media (prefers-color-scheme: dark) {
  body { background: #14191f; color: #e3e8ee; }
  nav { border-color: #39434e; }
  nav a { color: #7db8f5; }
  .swagger-ui { filter: invert(0.92) hue-rotate(180deg); }
  .swagger-ui .microlight { filter: invert(1) hue-rotate(180deg); }
}
"""

_ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


class _SwaggerPage(OpenAPIRenderPlugin):
    """Serves our page instead of the framework's, which loads its scripts from elsewhere."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """Give the page; the document itself is fetched by it."""
        return _PAGE


class _Document(JsonRenderPlugin):
    """Serves the document with examples that work now."""

    def __init__(self) -> None:
        super().__init__()
        self._encoded = b""
        self._fresh: tuple[str, bytes] = ("", b"")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """Give the document, made anew each hour."""
        if not self._encoded:
            self._encoded = msgspec.json.encode(apiexamples.filled(openapi_schema))
        now = datetime.now(UTC)
        hour = f"{now:%Y-%m-%dT%H}"
        if self._fresh[0] != hour:
            self._fresh = (hour, apiexamples.fresh(self._encoded, now))
        return self._fresh[1]


# Not cached by the framework: it keeps an answer for each query string, so anybody could fill the memory.
@get("/api/start.js", media_type="text/javascript", include_in_schema=False, opt=needs(PUBLIC))
async def start_script() -> Response[bytes]:
    """Give the few lines that start Swagger UI."""
    return Response(content=_START, media_type="text/javascript")


@get("/api/assets/{name:str}", include_in_schema=False, opt=needs(PUBLIC))
async def asset(name: Annotated[str, PathParameter(name="name")]) -> Response[bytes]:
    """Give one of the files that the page loads."""
    if name == "page.css":
        return Response(content=_STYLE, media_type="text/css")
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


_ABOUT: Final = """Energy telemetry for EV fleets: billed AC against delivered DC.

Times are RFC 3339 with a zone, energy is in kWh. Every answer that is an error has the shape of RFC 9457:
`code` is stable, `detail` tells a person what to do, `field` names what is to blame. Whatever can be got
answers HEAD, too.

Beside what each operation names, an address answers 405 to a method that it does not take, and the server
431, without a body, to headers that are too large. A 500 is a defect.

The examples can be tried as they are: they read devices of the simulated fleet (`fleetwatt demo`) and store
readings of devices of their own (`VH-EXAMPLE`, `METER-EXAMPLE`). Where keys are on, press "Authorize" first.
"""


def config() -> OpenAPIConfig:
    """Give the framework what stands at the head of the OpenAPI document."""
    return OpenAPIConfig(
        title="fleetwatt",
        version=__version__,
        description=_ABOUT,
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
        render_plugins=[_SwaggerPage(), _Document()],
        use_handler_docstrings=True,
        tags=[
            Tag(name="Ingest", description="Readings go in; a 2xx answer means committed"),
            Tag(name="Analytics", description="Latest states, energy and efficiency"),
            Tag(name="Sessions", description="Which vehicle drew from which meter, and when"),
            Tag(name="Dead letters", description="What was refused, and trying it again"),
            Tag(name="Sign-in", description="A cookie for a browser in place of a key"),
            Tag(name="Health", description="Probes and metrics"),
        ],
    )
