"""Logs: each event has a name, is one line, and in JSON nothing that Python says is anything else."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from service import paths

_ROOT: Final = Path(paths.__file__).parents[1]
_LEVELS: Final = {"debug", "info", "warning", "error", "critical", "exception"}
_LOGGER: Final = re.compile(r"(?:^|[._])(?:log|logger)$|^(?:structlog|log)\.get\w*\(.*\)$", re.DOTALL)
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
# Takes the name from its callers, which are looked at, too.
_PASSES_ON: Final = "service/lifecycle.py"

_EVERYTHING: Final = """
import logging, sys, threading, warnings
from service import log
log.configure("info", "{form}", service=True)
logger = log.get("test")
logger.debug("not_told")
logger.info("told", path="/\\x1b[2J\\nforged", number=1, none=None, object=object(), lines=["a\\nb"])
try:
    raise ValueError("two\\nlines")
except ValueError:
    logger.exception("failed")
logging.getLogger("a.library").warning("its words:\\n%s", "more")
logging.getLogger("a.library").info("not told")
warnings.warn("old ways", DeprecationWarning)
def broken():
    raise RuntimeError("in a thread")
thread = threading.Thread(target=broken, name="worker")
thread.start()
thread.join()
class Broken:
    def __del__(self):
        raise RuntimeError("nobody can catch this")
Broken()
raise KeyError("the end")
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_every_line_is_an_event() -> None:
    """In JSON each line is an event with a name, a level and a time, whoever speaks; tracebacks are in it."""
    told = _run(_EVERYTHING.format(form="json"))
    assert told.returncode == 1
    events: list[dict[str, Any]] = [msgspec.json.decode(line) for line in told.stderr.splitlines()]
    assert [(event["event"], event["level"]) for event in events] == [
        ("told", "info"),
        ("failed", "error"),
        ("library", "warning"),
        ("library", "warning"),
        ("thread_crashed", "error"),
        ("exception_ignored", "error"),
        ("crashed", "critical"),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event["timestamp"]) for event in events)
    first, failed, library, warned, thread, ignored, crashed = events
    assert (first["component"], first["path"], first["lines"]) == ("test", "/\x1b[2J\nforged", ["a\nb"])
    assert "ValueError: two\nlines" in failed["exception"]
    assert (library["logger"], library["message"]) == ("a.library", "its words:\nmore")
    assert "DeprecationWarning: old ways" in warned["message"]
    assert (thread["thread"], "in a thread" in thread["exception"]) == ("worker", True)
    assert "nobody can catch this" in ignored["exception"]
    assert "KeyError: 'the end'" in crashed["exception"]


def test_text_is_for_people() -> None:
    """As text the same events are a line each; only tracebacks take more, and nothing obeys what was sent."""
    told = _run(_EVERYTHING.format(form="text"))
    lines = [line for line in told.stderr.splitlines() if re.match(r"\d{4}-\d\d-\d\dT", line)]
    names = [line.split("]", 1)[1].split()[0] for line in lines]
    assert names == [
        "told",
        "failed",
        "library",
        "library",
        "thread_crashed",
        "exception_ignored",
        "crashed",
    ]
    assert "\\x1b[2J\\nforged" in lines[0]
    assert "\x1b" not in told.stderr
    assert "ValueError: two" in told.stderr


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_the_end_of_a_service(command: str) -> None:
    """What ends a service is an event in JSON, and for people on a terminal a line of words."""
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    for form, starts in (("json", "{"), ("text", "fleetwatt: ")):
        told = subprocess.run(
            [sys.executable, "-m", "service", command],
            cwd=_ROOT,
            env={
                "PATH": os.environ["PATH"],
                "FLEETWATT_DATABASE_URL": nowhere,
                "FLEETWATT_MQTT_URL": "mqtt://127.0.0.1:1",
                "FLEETWATT_TRACES_URL": "nowhere",
                "FLEETWATT_LOG_FORMAT": form,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        last = told.stderr.splitlines()[-1]
        assert (told.returncode, last.startswith(starts)) == (1, True), told.stderr
        assert "FLEETWATT_TRACES_URL must look like" in last
        if form == "json":
            assert msgspec.json.decode(last)["event"] == "ended"


def _events() -> Iterator[tuple[str, ast.expr]]:
    """Give where each event is logged, and what its name is."""
    for file in sorted((_ROOT / "service").rglob("*.py")):
        where = str(file.relative_to(_ROOT))
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in _LEVELS and _LOGGER.search(ast.unparse(node.func.value)):
                yield f"{where}:{node.lineno}", node.args[0]
            elif ast.unparse(node.func) == "lifecycle.repeat":
                yield f"{where}:{node.lineno}", node.args[3]


def test_every_event_has_a_name() -> None:
    """An event is named by a literal in words of ours, so that one can look for it; values stand beside."""
    found = [(where, name) for where, name in _events() if not where.startswith(_PASSES_ON)]
    assert len(found) > 30
    wrong = [
        where
        for where, name in found
        if not (isinstance(name, ast.Constant) and _NAME.fullmatch(str(name.value)))
    ]
    assert wrong == []
