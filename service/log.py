"""Structured logs: one event a line, for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(level: str = "info", log_format: str = "auto") -> None:
    """Send structlog events, and warnings of the libraries below us, to standard error."""
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
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
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
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # gmqtt reports each lost connection on several lines; service/ingest/mqtt.py logs one event instead.
    logging.getLogger("gmqtt").setLevel(logging.CRITICAL)


def printable(text: str) -> str:
    """Replace what a terminal could obey (escapes, and marks that turn the line around) by its code."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _make_printable(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Let nothing that somebody sent, such as a path, tell the terminal what to do."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def get(name: str) -> Any:
    """Give a logger bound to the part of the engine that speaks."""
    return structlog.get_logger(component=name)
