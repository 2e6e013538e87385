"""The pages of the documentation, and the commands on them, run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.support import servers

PROJECT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    str(page.relative_to(PROJECT))
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "bench/*.md")
    for page in PROJECT.glob(pattern)
)
# Pages under docs/ whose commands are for a running engine.
TASKS: Final = ("operations", "export", "doctor", "lifecycle")
# Only a command that hangs takes that long.
_PATIENCE_S: Final = 150


class Block(NamedTuple):
    """A fenced block: its page, the line that it begins at, its language, its text, and the one below it."""

    page: str
    line: int
    language: str
    text: str
    answer: str | None

    @property
    def name(self) -> str:
        """Say where it is."""
        return f"{self.page}:{self.line}"


def blocks(page: str, *languages: str) -> list[Block]:
    """Give the blocks of a page that are in one of the languages.

    A block of JSON right below is the answer to the last command.
    """
    text = (PROJECT / page).read_text()
    found = [
        (text[: match.start()].count("\n") + 1, match[1], match[2])
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]
    return [
        Block(page, line, language, body, below[2] if below and below[1] == "json" else None)
        for (line, language, body), below in zip(found, [*found, None][1:], strict=True)
        if language in languages
    ]


class Shell:
    """A shell in a folder of its own, in which commands of a page are run one block after the other."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = str(data)
        root = servers.apache_root() / "usr"
        self._environment = {
            "PATH": f"{root}/lib/postgresql/17/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "FLEETWATT_DATA_DIR": self.data,
        }
        # As `just setup` puts it there.
        tool = folder / ".venv/bin/fleetwatt"
        tool.parent.mkdir(parents=True)
        tool.write_text(f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m service "$@"\n')
        tool.chmod(0o755)

    def run(self, page: Sequence[Block], changed: Mapping[str, str]) -> dict[str, str]:
        """Run blocks in one shell, each `changed` in these words; give what each printed, by its name.

        SQL is run at the address in $OWNER.

        Raises AssertionError where a command fails, with what was printed.
        """
        unused = set(changed)
        script = ["set -euo pipefail", 'export PATH="$PWD/.venv/bin:$PATH"']
        for block in page:
            text = block.text
            for words, instead in changed.items():
                if words in text:
                    unused.discard(words)
                    text = text.replace(words, instead)
            if block.language == "sql":
                text = f"psql \"$OWNER\" --quiet -v ON_ERROR_STOP=1 <<'END'\n{text}\nEND"
            script += [f"exec > '{self._output(block)}' 2>&1", text]
        assert not unused, f"no command has these words: {unused}"
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            cwd=self.folder, env=self._environment, timeout=_PATIENCE_S,
        )  # fmt: skip
        told = {block.name: file.read_text() for block in page if (file := self._output(block)).exists()}
        assert done.returncode == 0, (done.stderr, list(told.items())[-1:])
        assert set(told) == {block.name for block in page}
        return told

    def _output(self, block: Block) -> Path:
        return self.folder / f"{block.name.replace('/', '-')}.out"
