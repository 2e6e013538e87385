"""RFC 9457 problem details: every answer that is an error has this shape, and a stable type."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import psycopg
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from service import log
from service.errors import BufferFullError, DatabaseUnavailableError, is_transient

CONTENT_TYPE: Final = "application/problem+json"
_TYPE_PREFIX: Final = "urn:fleetwatt:problem:"
_BY_STATUS: Final = {
    400: ("bad-request", "The request cannot be understood"),
    404: ("not-found", "There is nothing here"),
    405: ("method-not-allowed", "This address does not take that method"),
    408: ("timeout", "The request took too long"),
    413: ("too-large", "The request is too large"),
    414: ("url-too-long", "The address is too long"),
    415: ("unsupported-media-type", "The content type is not supported"),
    421: ("misdirected", "The request is not for this service"),
    429: ("too-many-requests", "Too many requests"),
    503: ("unavailable", "The engine cannot store or read right now"),
}
_RETRY_AFTER_S: Final = 2


class Problem(Exception):  # noqa: N818 - the field's own word
    """An error that a client is told about.

    `code` becomes the stable type; `field` names the field to blame; `extra` holds further members.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        title: str | None = None,
        field: str | None = None,
        headers: dict[str, str] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.title = title or _BY_STATUS.get(status, ("", "The request was refused"))[1]
        self.field = field
        self.headers = headers or {}
        self.extra = extra or {}

    def body(self) -> bytes:
        """Give the body of the answer."""
        body = {
            "type": _TYPE_PREFIX + self.code.replace("_", "-"),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code.replace("-", "_"),
        }
        if self.field is not None:
            body["field"] = self.field
        return msgspec.json.encode(body | self.extra)

    def response(self) -> Response[bytes]:
        """Give the answer as it goes out."""
        return Response(
            content=self.body(),
            status_code=self.status,
            media_type=CONTENT_TYPE,
            headers=self.headers,
        )


def unavailable(detail: str, **extra: Any) -> Problem:
    """Give a 503 that says when to come back; `extra` are further members of it."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(_RETRY_AFTER_S)}, extra=extra)


def _of_problem(_request: Request[Any, Any, Any], error: Problem) -> Response[bytes]:
    return error.response()


def _of_http(_request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    code, title = _BY_STATUS.get(error.status_code, ("refused", "The request was refused"))
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    detail = error.detail or title
    if error.status_code == 405 and "allow" in headers:
        detail = f"this address takes {headers['allow']}"
    return Problem(error.status_code, code, detail, title=title, headers=headers).response()


def explain(path: str, error: Exception) -> Problem:
    """Give 503 for a database that is away, 500 without details for a defect of ours."""
    if isinstance(error, BufferFullError | DatabaseUnavailableError):
        return unavailable(f"{error}")
    if isinstance(error, psycopg.Error):
        log.get("http").warning("database_error", sqlstate=error.sqlstate, error=str(error).splitlines()[:1])
    if is_transient(error) or isinstance(error, TimeoutError):
        return unavailable("the database is not available; try again soon")
    log.get("http").error("request_failed", path=path, exc_info=error)
    return Problem(
        500, "internal", "an unexpected error; the log holds the details", title="The engine failed"
    )


def _of_any(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return explain(request.scope["path"], error).response()


HANDLERS: Final[ExceptionHandlersMap] = {
    Problem: _of_problem,
    HTTPException: _of_http,
    Exception: _of_any,
}
