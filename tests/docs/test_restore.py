"""docs/backup.md: a dump goes back into the running `fleetwatt up` that it was made of."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.pages import PROJECT, Block, Shell, blocks
from tests.docs.test_tasks import BEGIN

pytestmark = pytest.mark.timeout(300)

PAGE = "docs/backup.md"
# A reading for which there is a dump, and after that one for which there is none.
SEND = """curl -sSf "$API/v1/telemetry" -H 'Content-Type: application/json' -d '
  {{"meterId": "{meter}", "kwhConsumedAc": 0.5, "voltage": 230, "timestamp": "2026-02-03T12:00:00Z"}}'
"""
OLD = """OLD=$(fleetwatt status --json | python3 -c '
import json, sys, urllib.parse
running = json.load(sys.stdin)
password = json.load(open(running["dataDir"] + "/passwords.json"))["postgres"]
port = urllib.parse.urlsplit(running["database"]).port
print(f"postgresql://postgres:{password}@127.0.0.1:{port}/fleetwatt")')
"""
LOOK = """API=$(address http)
for meter in before after; do
  curl -s -o /dev/null -w '%{http_code}\\n' "$API/v1/ingest/meter/$meter/current"
done
fleetwatt doctor --json || true
"""


def under(heading: str) -> Block:
    """Give the one block of commands under a heading."""
    text = (PROJECT / PAGE).read_text()
    line = text[: text.index(f"\n## {heading}\n") + 1].count("\n") + 1
    after = [
        number for number, one in enumerate(text.splitlines(), 1) if one.startswith("## ") and number > line
    ]
    [block] = [one for one in blocks(PAGE, "sh") if line < one.line < after[0]]
    return block


def test_restore_into_up(shell: Shell) -> None:
    """What was stored before the dump is there, what came after it is not; the service goes on by itself."""
    dump, restore = under("Dump"), under("Restore into fleetwatt up")
    script = [
        Block("begin", 0, "sh", BEGIN, None),
        Block("before", 0, "sh", SEND.format(meter="before") + OLD, None),
        dump,
        Block("modes", 0, "sh", "umask; stat -c '%a' roles.sql fleetwatt.dump", None),
        Block("after", 0, "sh", SEND.format(meter="after"), None),
        restore,
        Block("look", 0, "sh", LOOK, None),
    ]
    told = shell.run(script, {})
    assert told["modes:0"].split()[1:] == ["600", "600"]
    assert not re.search("ERROR", told[restore.name]), told[restore.name]
    stored, missing, found = told["look:0"].splitlines()
    assert (stored, missing) == ("200", "404")
    assert [one for one in json.loads(found)["findings"] if one["severity"] == "error"] == []
