"""What requests of the read routes have in common: whom they ask, windows, and devices that nobody knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from service.analytics.reads import Reads
from service.analytics.series import Series, Span, Width
from service.web import parameters
from service.web.answers import answer
from service.web.problems import Problem

# We made it: nothing to validate on each request.
InjectedReads = NamedDependency[SkipValidation[Reads]]
InjectedSeries = NamedDependency[SkipValidation[Series]]
AnyRequest = Request[Any, Any, Any]

WIDTHS: Final[dict[str, Width]] = {"hour": "hour", "day": "day"}
_LENGTH: Final[dict[Width, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
# More than a year of hours.
_INTERVALS_MAX: Final = 9_000


def wants_fresh(request: AnyRequest) -> bool:
    """Tell whether a client takes no answer but one of now (RFC 9111, 5.2.1.4)."""
    return "no-cache" in request.headers.get("cache-control", "").lower()


def found(body: dict[str, Any] | None, what: str, device_id: str) -> Response[bytes]:
    """Answer with what is known of a device, or 404."""
    if body is None:
        raise Problem(404, "unknown_device", f"no {what} {device_id!r} has ever reported")
    return answer(body)


def span_of(from_: str | None, to: str | None, tz: str | None, width: Width | None) -> Span:
    """Read a window and a zone; refuse a window of more hours or days than one answer should hold."""
    start, end = parameters.window(from_, to)
    if width and (end - start) / _LENGTH[width] > _INTERVALS_MAX:
        message = f"from and to are more than {_INTERVALS_MAX:,} {width}s apart: ask for a part"
        if width == "hour":
            message += ", or by=day"
        raise Problem(400, "bad_parameter", message, field="from")
    return Span(start, end, parameters.zone("tz", tz))
