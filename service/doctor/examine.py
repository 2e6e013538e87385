"""All checks, one after the other; one that fails is a finding and keeps no other from being made."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import psycopg

from service.doctor import certificates, data, messages, replica, room, server, versions, work
from service.doctor.broker import Seen
from service.doctor.finding import SEVERITIES, Finding, Patient
from service.doctor.look import Look
from service.errors import FleetwattError, SettingsError, first_line, no_answer
from service.sql import query


class Report(msgspec.Struct, frozen=True):
    """What was looked at, and what was found, the worst first."""

    facts: dict[str, str]
    findings: list[Finding]

    @property
    def exit_code(self) -> int:
        """Give 2 where there is an error, 1 where there is a warning, else 0."""
        severities = {finding.severity for finding in self.findings}
        return 2 if "error" in severities else 1 if "warning" in severities else 0


def examine(patient: Patient) -> Report:
    """Look at everything."""
    facts: dict[str, str] = {}
    findings, seen = _of_broker(patient)
    if seen is not None:
        facts["broker"] = seen.told.get("$SYS/broker/version", "tells no version")
    findings += _guarded("encryption", lambda: work.ways(patient))
    findings += _guarded("certificates", lambda: certificates.expiry(patient))
    findings += _of_database(patient, seen, facts)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(facts, findings)


def _of_broker(patient: Patient) -> tuple[list[Finding], Seen | None]:
    try:
        return messages.broker_itself(patient)
    except FleetwattError as error:
        return [Finding("error", "broker", str(error), "no worker can start like this")], None


def _of_database(patient: Patient, seen: Seen | None, facts: dict[str, str]) -> list[Finding]:
    url = patient.settings.database_url or patient.settings.migrate_database_url
    if not url:
        return [_no_database("no database is set, and no engine runs", "fleetwatt up --detach")]
    try:
        patient.address  # noqa: B018 - libpq's own words about an address may hold a password
        look = Look.at(url)
    except SettingsError as error:
        return [_no_database(str(error), "")]
    except psycopg.Error as error:
        return [_no_database(str(no_answer(error)), "systemctl start postgresql")]
    try:
        return _of_server(patient, look, seen, facts)
    finally:
        look.close()


def _no_database(what: str, command: str) -> Finding:
    return Finding("error", "database", what, "no reading is stored and no question answered", command)


def _of_server(patient: Patient, look: Look, seen: Seen | None, facts: dict[str, str]) -> list[Finding]:
    begun, began = patient.now(), time.monotonic()
    try:
        told = look.one(query("doctor_server"))
    except psycopg.Error as error:
        return [_could_not("database", error)]
    took_s = time.monotonic() - began
    edition = {"timescale": "Community", "apache": "Apache-2"}.get(told["license"], "none")
    facts["database"] = f"PostgreSQL {told['postgres']}, TimescaleDB {told['timescaledb']} ({edition})"
    skew_s = told["now"].timestamp() - begun - took_s / 2
    findings = [
        *versions.of_database(told),
        *server.durability(patient, told),
        *server.clock(skew_s, took_s / 2, patient.settings.clock_ahead_s),
    ]
    schema = _guarded("schema", lambda: server.schema(patient, look))
    findings += schema
    if schema:
        # What an older or newer schema lacks would be found missing again and again.
        return findings
    checks: dict[str, Callable[[], list[Finding]]] = {
        "roles": lambda: server.roles(patient, look, told),
        "lifecycle": lambda: data.lifecycle(patient, look),
        "times": lambda: data.old_times(patient, look),
        "jobs": lambda: data.jobs(patient, look, told),
        "rollups": lambda: data.rollups(patient, look),
        "memory": lambda: room.chunks(patient, look, told),
        "disk": lambda: room.disk(patient, look),
        "dead letters": lambda: work.letters(patient, look),
        "alerts": lambda: work.alerts(patient, look),
        "keys": lambda: work.keys(patient, look),
        "replica": lambda: replica.replica(patient, look),
        "sessions": lambda: messages.workers(patient, look, seen),
    }
    for name, check in checks.items():
        findings += _guarded(name, check)
    return findings


def _guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
        if name != "schema":
            return [_could_not(name, error)]
        what = "the database has no schema yet, or one of an earlier fleetwatt"
        return [Finding("error", name, what, "there is nowhere to store", "fleetwatt migrate")]
    except (psycopg.Error, OSError, FleetwattError) as error:
        return [_could_not(name, error)]


def _could_not(name: str, error: BaseException) -> Finding:
    return Finding("error", name, f"could not look: {first_line(error)}", "what is wrong there stays unknown")
