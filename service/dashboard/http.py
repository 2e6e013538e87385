"""The pages and what they load: plain files of this package, and plotly's script from its own.

A page holds no data, so it needs no key and is the same for everybody: what it shows it asks the API for.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get
from litestar.params import PathParameter

from service.dashboard import files
from service.dashboard.files import File
from service.web.headers import takes_gzip
from service.web.principal import PUBLIC, needs
from service.web.problems import Problem

AnyRequest = Request[Any, Any, Any]
# What carries the digest of its content, or a version, in its address never changes there.
_FOR_GOOD: Final = "public, max-age=31536000, immutable"
# Kept, but asked for whether it is still the same: an upgrade shows at once.
_ASK: Final = "no-cache"
_PAGES: Final = {
    "/": "fleet",
    "/vehicles/{vehicleId:str}": "vehicle",
    "/meters/{meterId:str}": "meter",
    "/alerts": "alerts",
    "/engine": "engine",
    "/sign-in": "sign_in",
}


@get("/assets/{build:str}/{name:str}", include_in_schema=False, opt=needs(PUBLIC))
async def built_asset(
    request: AnyRequest,
    build: Annotated[str, PathParameter(name="build")],
    name: Annotated[str, PathParameter(name="name")],
) -> Response[bytes]:
    """Give an asset as a page names it: with the digest of all assets in its address."""
    # Another build's page, while processes are upgraded one by one, gets what there is, and keeps it not.
    return _give(request, _found(name), _FOR_GOOD if build == files.build() else _ASK)


@get("/assets/{name:str}", include_in_schema=False, opt=needs(PUBLIC), sync_to_thread=True)
def asset(request: AnyRequest, name: Annotated[str, PathParameter(name="name")]) -> Response[bytes]:
    """Give an asset by its name alone, or plotly's script, which has a version in its name."""
    # In a thread: packing that script, once in the life of a process, takes some tenths of a second.
    if name == files.plotly_name():
        return _give(request, files.plotly(), _FOR_GOOD)
    return _give(request, _found(name), _ASK)


def _found(name: str) -> File:
    found = files.assets().get(name)
    if found is None:
        raise Problem(404, "not_found", "there is no such file")
    return found


def _give(request: AnyRequest, file: File, caching: str) -> Response[bytes]:
    """Answer with a file, packed where the client takes that; 304 where it has it already."""
    headers = {"Cache-Control": caching, "ETag": file.etag, "Vary": "Accept-Encoding"}
    if _has(request.headers.get("if-none-match", ""), file.etag):
        return Response(content=b"", status_code=304, headers=headers)
    if takes_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        return Response(content=file.packed, media_type=file.media_type, headers=headers)
    return Response(content=file.content(), media_type=file.media_type, headers=headers)


def _has(if_none_match: str, etag: str) -> bool:
    """Tell whether a client names an ETag as one that it has (RFC 9110, 13.1.2: compared weakly)."""
    return any(each.strip() in {"*", etag, etag.removeprefix("W/")} for each in if_none_match.split(","))


def _page(path: str, name: str) -> Any:
    """Make the handler of a page."""

    @get(path, include_in_schema=False, opt=needs(PUBLIC), name=f"dashboard-{name}")
    async def show(request: AnyRequest) -> Response[bytes]:
        return _give(request, files.pages()[name], _ASK)

    return show


def router() -> Router:
    """Give the pages and their assets; they are read and packed here, before anybody asks."""
    files.pages()
    return Router(
        path="/",
        route_handlers=[*(_page(path, name) for path, name in _PAGES.items()), built_asset, asset],
        include_in_schema=False,
    )
