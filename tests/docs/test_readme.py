"""The README's commands do what it says, in its order, on an engine of their own."""

from __future__ import annotations

import json

import pytest

from tests.docs.pages import Block, Shell, blocks
from tests.support import servers
from tests.support.servers import Postgres, free_port

pytestmark = pytest.mark.timeout(300)

# The way to start: what CI runs (.ci/run), and what the demo does is tested in tests/service/test_demo.py.
FIRST = "python3 -m pip install"
# Needs an engine for containers; tests/deploy runs what is in them.
CONTAINERS = "deploy/compose/make-secrets.sh"
# A database and a broker of one's own, and keys that close the service: they have a test of their own.
OWN_SERVERS = "export FLEETWATT_MIGRATE_DATABASE_URL="
KEYS = "fleetwatt key create"
SESSIONS = """User ID,CP ID,Connector,Start Date,Start Time,End Date,End Time,Total kWh
driver-1,CP-1,1,30/01/2026,18:00,30/01/2026,22:30,21.4
driver-2,CP-1,2,31/01/2026,07:15,31/01/2026,09:00,8.25
"""
METER = """Date,Time,Global_active_power,Voltage
16/12/2025,17:24:00,4.216,234.84
16/12/2025,17:25:00,5.360,233.63
"""


def readme() -> list[Block]:
    """Give the blocks of commands."""
    return blocks("README.md", "sh")


def test_the_whole_way(shell: Shell) -> None:
    """Up, down and up; readings, sessions, answers, imports, exports, a simulation; answers as printed."""
    (shell.folder / "sessions.csv").write_text(SESSIONS)
    (shell.folder / "meter.csv").write_text(METER)
    page = [block for block in readme() if not block.text.startswith((FIRST, CONTAINERS, OWN_SERVERS, KEYS))]
    told = shell.run(
        page,
        {
            # `up`, once more: the page goes on with a running engine.
            "fleetwatt down ": "fleetwatt down; fleetwatt up --detach ",
            "--for 60": "--for 3",
        },
    )
    answers = {block.name: block.answer for block in page if block.answer}
    assert len(answers) >= 2
    for name, answer in answers.items():
        first, *_ = [line for line in told[name].splitlines() if line.startswith("{")]
        assert json.loads(first) == json.loads(answer), name


# A server in the background, until it answers; what it needs to be told that.
SERVE = """fleetwatt serve &
SERVE=$!
until curl -s "http://127.0.0.1:$FLEETWATT_HTTP_PORT/health/ready" > /dev/null; do
  kill -0 $SERVE
  sleep 0.1
done #"""
STORED = """PUB='{pub}'
until curl -sf "http://127.0.0.1:$FLEETWATT_HTTP_PORT/v1/ingest/meter/m-1/current"; do
  "$PUB" -L "$FLEETWATT_MQTT_URL/telemetry/meter/m-1" -q 1 \
    -m '{{"kwhConsumedAc": 0.6, "voltage": 230, "timestamp": "2026-01-31T12:01:00Z"}}'
  sleep 0.2
done
kill $SERVE $WORKER
wait
"""
REFUSED = """curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$FLEETWATT_HTTP_PORT/v1/analytics/stats"
kill $SERVE
wait
"""


def test_your_own_servers_and_keys(
    shell: Shell, running_servers: dict[str, Postgres], broker_port: int
) -> None:
    """A reading over MQTT is stored; then only who shows a key is answered."""
    server, port = running_servers["apache"], free_port()
    [own] = [block for block in readme() if block.text.startswith(OWN_SERVERS)]
    [keys] = [block for block in readme() if block.text.startswith(KEYS)]
    pub = servers.apache_root() / "usr/bin/mosquitto_pub"
    with server.database(empty=True) as name:
        told = shell.run(
            [
                Block("port", 0, "sh", f"export FLEETWATT_HTTP_PORT={port}", None),
                own,
                Block("stored", 0, "sh", STORED.format(pub=pub), None),
                keys,
                Block("refused", 0, "sh", REFUSED, None),
            ],
            {
                "postgresql://admin:...@db.example/fleetwatt": server.url("postgres", name),
                "postgresql://fleetwatt_service:...@db.example/fleetwatt": server.url(
                    "fleetwatt_service", name
                ),
                "password '...'": f"password '{servers.PASSWORD}'",
                "mqtt://user:...@broker.example": f"mqtt://127.0.0.1:{broker_port}",
                # Here nothing listens beyond loopback.
                "FLEETWATT_HTTP_HOST=0.0.0.0 fleetwatt serve": SERVE,
                "fleetwatt serve ": SERVE,
                "fleetwatt worker ": "fleetwatt worker & WORKER=$! #",
                "-H 'Authorization: Bearer fw_...'": '-H "Authorization: Bearer '
                f"$(grep -ho 'fw_[A-Za-z0-9_.-]*' {keys.name}.out | head -1)\"",
                "http://host.example:8080": f"http://127.0.0.1:{port}",
            },
        )
    assert '"meterId":"m-1"' in told["stored:0"]
    assert '"readingsPerSecond"' in told[keys.name], told[keys.name]
    assert told["refused:0"] == "401"
