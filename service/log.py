"""Structured logs: one event a line, for people on a terminal and as JSON elsewhere.

Each event has a name, in words of ours that never change with its values; what libraries say is the event
`library`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

_told_as_json = False


def configure(level: str = "info", log_format: str = "auto", *, service: bool = False) -> None:
    """Send structlog events, and warnings of the libraries below us, to standard error.

    Of a `service` whatever else Python has to say is an event, too: warnings, and what ends it or a thread.
    """
    global _told_as_json  # noqa: PLW0603 - logging is the process's
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        # Not the default one, which shows the values of variables: passwords are among them.
        else [
            _make_printable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_foreign, structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # gmqtt reports each lost connection on several lines; service/ingest/mqtt.py logs one event instead.
    logging.getLogger("gmqtt").setLevel(logging.CRITICAL)
    if service:
        _told_as_json = as_json
        logging.captureWarnings(True)
        sys.excepthook = _crashed
        threading.excepthook = _thread_crashed
        sys.unraisablehook = _unraisable


def tell_end(error: str) -> bool:
    """Log why a service ends, where its log is JSON; where it is not, tell that it is still to be said."""
    if _told_as_json:
        get("process").error("ended", error=error)
    return _told_as_json


def printable(text: str) -> str:
    """Replace what a terminal could obey (escapes, and marks that turn the line around) by its code."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _name_foreign(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make what a library says a value: it is no name, and holds values of its own."""
    event["message"] = event["event"]
    event["event"] = "library"
    return event


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        get("process").critical("crashed", exc_info=(kind, error, trace))
    else:
        sys.__excepthook__(kind, error, trace)


def _thread_crashed(ended: threading.ExceptHookArgs) -> None:
    thread = ended.thread.name if ended.thread else None
    get("process").error("thread_crashed", thread=thread, exc_info=ended.exc_value)


def _unraisable(ignored: Any) -> None:
    get("process").error("exception_ignored", within=repr(ignored.object), exc_info=ignored.exc_value)


def _make_printable(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Let nothing that somebody sent, such as a path, tell the terminal what to do."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def get(name: str) -> Any:
    """Give a logger bound to the part of the engine that speaks."""
    return structlog.get_logger(component=name)
