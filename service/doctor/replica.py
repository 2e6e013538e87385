"""The replica that answers questions, where one is set."""

from __future__ import annotations

from typing import Final

import psycopg

from service import dsn
from service.doctor.finding import Finding, Patient, size
from service.doctor.look import Look
from service.errors import first_line
from service.sql import query

# More of the log than a replica that keeps up is ever behind.
_BEHIND_BYTES: Final = 64 * 2**20
_PRIMARY: Final = "questions are answered by the primary as long as that is so, beside all that it writes"


def replica(patient: Patient, look: Look) -> list[Finding]:
    """Tell of a replica that is away, far behind, or none of this database."""
    url = patient.settings.read_database_url
    if not url:
        return []
    dsn.check(url, "FLEETWATT_READ_DATABASE_URL")
    here = look.one(query("log_position"))
    try:
        other = Look.at(url)
    except psycopg.OperationalError as error:
        what = f"the replica does not answer: {first_line(error)}"
        return [
            Finding("warning", "replica", what, _PRIMARY, "systemctl start postgresql    # on its machine")
        ]
    try:
        there = other.one(query("log_position"))
    finally:
        other.close()
    if not there["in_recovery"] or there["system_identifier"] != here["system_identifier"]:
        what = "FLEETWATT_READ_DATABASE_URL is no replica of this database"
        command = "set FLEETWATT_READ_DATABASE_URL to a replica, or leave it out (docs/operations.md)"
        return [Finding("warning", "replica", what, _PRIMARY, command)]
    behind = here["position"] - there["position"]
    if behind < _BEHIND_BYTES:
        return []
    what = f"the replica is {size(behind)} of the log behind"
    command = patient.psql("select * from pg_stat_replication")
    return [Finding("warning", "replica", what, _PRIMARY, command)]
