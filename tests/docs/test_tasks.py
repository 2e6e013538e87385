"""Commands of pages under docs/ that are about one task, on a running engine."""

from __future__ import annotations

import pytest

from tests.docs.pages import TASKS, Block, Shell, blocks

pytestmark = pytest.mark.timeout(300)

# An engine with a vehicle and a meter, a session, and two readings that were refused for their clocks.
BEGIN = """fleetwatt up --detach
address() { fleetwatt status --json | python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }
API=$(address http)
export OWNER=$(address database)
export FLEETWATT_MIGRATE_DATABASE_URL=$OWNER
post() { curl -s -o /dev/null "$API$1" -H 'Content-Type: application/json' -d "$2"; }
post /v1/sessions '{"vehicleId": "VH-001", "meterId": "METER-001", "startedAt": "2026-01-30T12:00:00Z"}'
AC='"kwhConsumedAc": 0.6, "voltage": 230'
post /v1/telemetry '{"meterId": "METER-001", '"$AC"', "timestamp": "2026-01-31T12:00:00Z"}'
post /v1/telemetry '{"vehicleId": "VH-001", "soc": 63.5, "kwhDeliveredDc": 0.5, "batteryTemp": 28,
  "timestamp": "2026-01-31T12:00:00Z"}'
post /v1/telemetry '{"meterId": "METER-001", '"$AC"', "timestamp": "2126-01-31T12:00:00Z"}'
post /v1/telemetry '{"meterId": "METER-002", '"$AC"', "timestamp": "2126-01-31T12:00:00Z"}'
"""
END = "fleetwatt down"


def test_tasks(shell: Shell) -> None:
    """Each runs, and a few say what they must."""
    pages = [block for page in TASKS for block in blocks(f"docs/{page}.md", "sh", "console", "sql")]
    # What tests/service/test_backup.py and test_restore.py run is marked as sh.
    pages += [
        block
        for block in blocks("docs/backup.md", "console")
        if "pgbackrest" not in block.text and "docker compose" not in block.text
    ]
    told = shell.run(
        [Block("begin", 0, "sh", BEGIN, None), *pages, Block("end", 0, "sh", END, None)],
        {
            "~/.local/share/fleetwatt/data": shell.data,
            "/backup/": f"{shell.folder}/",
            "-H 'Authorization: Bearer fw_...'": "",
            "4711": "1",
            "4712": "2",
            # Its exit code tells that there is something to do: dead letters wait.
            "fleetwatt doctor\n": "fleetwatt doctor || test $? = 1\n",
        },
    )
    everything = "\n".join(told.values())
    assert "future_timestamp" in everything
    assert "dead letters" in everything
    assert (shell.folder / "hours.parquet").stat().st_size > 0
    assert (shell.folder / "january.csv.gz").stat().st_size > 0
