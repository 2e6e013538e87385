"""Commands of docs/runbooks, on a running engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PROJECT, Block, Shell, blocks
from tests.docs.test_tasks import BEGIN, END

pytestmark = pytest.mark.timeout(300)

PAGES = sorted(str(file.relative_to(PROJECT)) for file in Path(PROJECT, "docs/runbooks").glob("*.md"))


def test_runbooks(shell: Shell) -> None:
    """Each command runs as it stands, but for the address and the key of the service."""
    # Many begin alike: what stands on several pages is run once.
    once = {block.text: block for page in PAGES for block in blocks(page, "sh", "sql")}
    told = shell.run(
        [
            Block("begin", 0, "sh", BEGIN + "KEY=\n", None),
            *once.values(),
            Block("end", 0, "sh", END, None),
        ],
        {
            "http://127.0.0.1:8080": "$API",
            '-H "Authorization: Bearer $KEY"': "",
            # Its exit code tells that there is something to do: dead letters wait.
            "fleetwatt doctor": "{ fleetwatt doctor || test $? = 1; }",
        },
    )
    everything = "\n".join(told.values())
    for words in ('"breaker"', '"rollups"', "future_timestamp", "dead letters wait", "meter_reading"):
        assert words in everything, words
