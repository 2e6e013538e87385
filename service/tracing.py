"""Traces, where FLEETWATT_TRACES_URL asks for them; without it nothing of OpenTelemetry is imported.

`service/otel.py` makes the spans. Here is what other parts know of them: which one they work for.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from service.errors import SettingsError
from service.settings import Settings

if TYPE_CHECKING:
    from service.otel import Traces

_PATH: Final = "/v1/traces"

# The span of the request, message or commit that is being worked on; None where it is not traced.
CURRENT: Final[ContextVar[Any]] = ContextVar("fleetwatt_span", default=None)


def start(settings: Settings, instance: str) -> Traces | None:
    """Give what makes and exports spans, None where no traces are wanted; `instance` tells processes apart.

    Raises what `check` does.
    """
    if not settings.traces_url:
        return None
    make, url = _load(settings)
    return make(url, settings.traces_ratio, instance)


def check(settings: Settings) -> None:
    """Raise SettingsError for an address that cannot be read, and where OpenTelemetry is not installed."""
    if settings.traces_url:
        _load(settings)


def _load(settings: Settings) -> tuple[type[Traces], str]:
    parts = urlsplit(settings.traces_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"FLEETWATT_TRACES_URL must look like http://host:4318{_PATH} (OTLP over HTTP)")
    url = settings.traces_url if parts.path.strip("/") else parts._replace(path=_PATH).geturl()
    try:
        from service.otel import Traces
    except ImportError as error:
        raise SettingsError(
            f"FLEETWATT_TRACES_URL needs OpenTelemetry, which is not installed ({error.name}): "
            "install fleetwatt with the extra `tracing` (docs/install.md)"
        ) from None
    return Traces, url


def note(event: str, **values: str) -> None:
    """Note an event in the span that is being worked on, if there is one."""
    if (span := CURRENT.get()) is not None:
        span.add_event(event, values)
