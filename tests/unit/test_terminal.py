"""What somebody sent, or wrote into a file, never tells the terminal what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from service import log


def run(*arguments: str, code: str | None = None) -> str:
    """Run the command, or some Python; give what it wrote to standard error."""
    command = ["-c", code] if code else ["-m", "service", *arguments]
    result = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "FLEETWATT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return result.stderr


def test_errors_that_quote_a_file(tmp_path: Path) -> None:
    """A header with an escape sequence is shown, not obeyed."""
    file = tmp_path / "escape.csv"
    file.write_text("\x1b]0;title\x07,b\n1,2\n")
    said = run("import", str(file), "--meter-id", "x", "--time", "t", "--dry-run")
    assert "\\x1b]0;title\\x07" in said
    assert "\x1b]" not in said


def test_logs_for_people() -> None:
    """An event's values are shown in text form with their escapes spelled out."""
    said = run(
        code="from service import log; log.configure('info', 'text'); "
        "log.get('http').warning('seen', path='/\\x1b[2J\\nforged')"
    )
    assert "\\x1b[2J\\nforged" in said
    assert "\x1b[2J" not in said


def test_printable() -> None:
    """Letters of any language stay; what is no letter becomes its code."""
    assert log.printable("Zürich 10 °C") == "Zürich 10 °C"
    assert log.printable("a\x1b\n\u202eb") == "a\\x1b\\n\\u202eb"
