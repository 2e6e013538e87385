"""Versions that do not go together, each with where it is told; few, and all of them true."""

from __future__ import annotations

import re
from typing import Any

from service.doctor.finding import Finding

Version = tuple[int, ...]


def version(text: str) -> Version:
    """Read the numbers at the start of a version: 2.19.3 of "2.19.3-dev"."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def of_database(server: dict[str, Any]) -> list[Finding]:
    """Judge PostgreSQL and TimescaleDB, by what doctor_server tells."""
    if server["timescaledb"] is None:
        return [
            Finding(
                "error",
                "versions",
                "the database has no extension timescaledb",
                "fleetwatt keeps readings in hypertables",
                "fleetwatt migrate",
            )
        ]
    found = []
    number = server["postgres_number"]
    if number < 170_000:
        found.append(
            Finding(
                "error",
                "versions",
                f"PostgreSQL {server['postgres']} is older than 17",
                "fleetwatt is made for PostgreSQL 17, and tested on no older one",
                "pg_upgrade, see docs/upgrading.md",
            )
        )
    if number == 170_001:
        found.append(
            Finding(
                "error",
                "versions",
                f"PostgreSQL 17.1 with TimescaleDB {server['timescaledb']}",
                "17.1 changed the layout of a structure that extensions use, and crashes with a "
                "TimescaleDB that was "
                "built for another 17 (timescale/timescaledb issue 7478); 17.2 changed it back",
                "apt-get install --only-upgrade postgresql-17",
            )
        )
    if version(server["timescaledb"]) < (2, 19):
        found.append(
            Finding(
                "error",
                "versions",
                f"TimescaleDB {server['timescaledb']} is older than 2.19",
                "fleetwatt is made for 2.19: older ones have no columnstore that goes with its triggers",
                'psql -X -d fleetwatt -c "alter extension timescaledb update"',
            )
        )
    return found


def of_mosquitto(text: str, share: str, limits: dict[str, str]) -> list[Finding]:
    """Judge Mosquitto by $SYS/broker/version, the share that workers join, and its configuration."""
    if not text.startswith("mosquitto"):
        return []
    number = version(text.rpartition(" ")[2])
    found = []
    if (2, 0) <= number < (2, 1) and share:
        found.append(
            Finding(
                "warning",
                "versions",
                f"workers join a shared subscription on Mosquitto {_dotted(number)}",
                "2.0 forgets shared subscriptions when it restarts: what is published until a worker "
                "is back is "
                "acknowledged and dropped (docs/operations.md)",
                "export FLEETWATT_MQTT_SHARE=    # with one worker; several need Mosquitto 2.1 or "
                "another broker",
            )
        )
    unlimited = limits.get("max_queued_messages") == "0"
    if number == (2, 0, 16):
        found.append(
            Finding(
                "error",
                "versions",
                "Mosquitto 2.0.16",
                "max_inflight_messages is not kept to, and with max_queued_messages 0 clients get "
                "nothing; 2.0.17 "
                "mends both (its ChangeLog, issues 2876 and 2879)",
                "apt-get install --only-upgrade mosquitto",
            )
        )
    elif unlimited and (2, 0, 16) < number < (2, 0, 22):
        found.append(
            Finding(
                "warning",
                "versions",
                f"max_queued_messages 0 with Mosquitto {_dotted(number)}",
                "0 does not always mean unlimited before 2.0.22 (its ChangeLog, issue 3244), so "
                "messages may be "
                "dropped; a large number does the same in all versions",
                "sed -i 's/^max_queued_messages 0$/max_queued_messages 5000000/' mosquitto.conf    # "
                "and restart",
            )
        )
    return found


def _dotted(number: Version) -> str:
    return ".".join(map(str, number))
