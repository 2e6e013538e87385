"""How data age and are rolled up: what the settings ask for, what the database does, and what it fails at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from service.doctor.finding import Finding, Patient, size
from service.doctor.look import Look
from service.errors import SettingsError
from service.maintenance.retention import Rules
from service.sql import query

# What a refresh each minute, with its retries, never comes near to.
_LATE: Final = timedelta(minutes=15)
_STALE: Final = timedelta(hours=1)
_WAITING: Final = timedelta(days=1)
_DAY_S: Final = 86_400
_OLD_YEARS: Final = 15
_NOBODY: Final = "what it does is not done by anybody else"


def lifecycle(patient: Patient, look: Look) -> list[Finding]:
    """Hold the settings against what the database goes by, and say what goes, or would go."""
    try:
        wanted = Rules.of(patient.settings)
    except SettingsError as error:
        return [Finding("error", "lifecycle", str(error), "`fleetwatt migrate` refuses these settings")]
    row = look.one(query("doctor_lifecycle"))
    there = Rules.there(row)
    found = []
    if there != wanted:
        found.append(
            Finding(
                "warning",
                "lifecycle",
                f"settings ask that {wanted}. The database goes by: {there}",
                _what_goes(look, wanted)
                or "it takes over what `fleetwatt migrate` hands it, and nothing else",
                wanted.migrate
                + ("" if wanted.variables else f"    # or, to keep it so, set {there.variables}here, too"),
            )
        )
    elif what := _what_goes(look, there):
        found.append(Finding("note", "lifecycle", what, "FLEETWATT_RAW_RETENTION_DAYS asks for it"))
    if row["is_failing"]:
        found.append(
            Finding(
                "error",
                "lifecycle",
                f"old readings could not be dropped: {row['last_error']}",
                "the disk fills up",
                "fleetwatt doctor    # again, once the cause is mended; it is tried every 10 minutes",
            )
        )
    found += _waiting(look, there)
    # A worker that comes back brings readings that the broker kept for so long.
    kept_s = patient.settings.mqtt_session_expiry_s
    if patient.settings.mqtt_url and 0 < wanted.columnstore_after_days * _DAY_S < kept_s:
        found.append(
            Finding(
                "warning",
                "lifecycle",
                f"readings move to the columnstore after {wanted.columnstore_after_days} days, and the "
                "broker keeps "
                f"them for an absent worker for {kept_s // _DAY_S}",
                "late readings are stored all the same, but each batch of them costs more in the columnstore",
                wanted._replace(columnstore_after_days=-(-kept_s // _DAY_S)).migrate,
            )
        )
    return found


def _what_goes(look: Look, rules: Rules) -> str:
    rows = _expired(look, rules)
    return "; ".join(
        f"{row['chunks']} chunks of {row['relation']} until {row['range_to']:%Y-%m-%d} are too old "
        f"({size(row['bytes'])})"
        " and go next"
        for row in rows
    )


def _expired(look: Look, rules: Rules) -> list[dict[str, Any]]:
    return look.rows(query("expired"), **rules._asdict())


def _waiting(look: Look, rules: Rules) -> list[Finding]:
    """Tell of chunks that should have gone a day ago and are still not rolled up."""
    now = look.one(query("doctor_refresh"))["now"]
    found = []
    for row in _expired(look, rules):
        days = (
            rules.raw_retention_days if row["relation"].endswith("_reading") else rules.rollup_retention_days
        )
        if row["waiting"] and row["waiting_since"] < now - timedelta(days=days) - _WAITING:
            found.append(
                Finding(
                    "warning",
                    "lifecycle",
                    f"{row['waiting']} chunks of {row['relation']} are too old and cannot go",
                    "they are not rolled up yet, or readings behind them are still there: look at the "
                    "rollups first",
                    'psql -d fleetwatt -c "select * from rollup_health"',
                )
            )
    return found


def old_times(patient: Patient, look: Look) -> list[Finding]:
    """Tell of readings whose time is before there was a fleet: clocks of devices that fell back."""
    found = []
    for row in look.rows(query("doctor_old_chunks"), years=_OLD_YEARS):
        devices = patient.psql(
            "select {kind}_id, count(*), min(recorded_at) from {kind}_reading "
            "where recorded_at < now() - interval '{years} years' group by 1",
            kind=row["relation"].partition("_")[0],
            years=_OLD_YEARS,
        )
        found.append(
            Finding(
                "warning",
                "times",
                f"{row['chunks']} chunks of {row['relation']} hold readings of more than {_OLD_YEARS} years "
                f"ago, the first of {row['range_from']:%Y-%m-%d}",
                "a device's clock has fallen back, most likely; each such day is a chunk of its own, and "
                "every question has to look past it",
                f"{devices}    # or FLEETWATT_RAW_RETENTION_DAYS, with which such readings are refused",
            )
        )
    return found


def jobs(patient: Patient, look: Look, server: dict[str, Any]) -> list[Finding]:
    """Tell of jobs of the database that are missing, off, or failing; none on Apache-2."""
    if not look.one(query("doctor_refresh"))["is_scheduled"]:
        return []
    found = []
    rows = look.rows(query("doctor_jobs"))
    rules = Rules.there(look.one(query("doctor_lifecycle")))
    if server["background_workers"] == 0:
        found.append(
            Finding(
                "error",
                "jobs",
                "timescaledb.max_background_workers is 0",
                "no job of the database runs: nothing is rolled up, converted or dropped",
                patient.psql("alter system set timescaledb.max_background_workers = 16")
                + "    # and restart it",
            )
        )
    return found + _strange_jobs(patient, rows, rules) + _failing_jobs(patient, rows)


def _wanted_jobs(rules: Rules) -> dict[tuple[str, str | None], timedelta | None]:
    """Give the jobs that should be there, and after what time those of the columnstore work."""
    wanted: dict[tuple[str, str | None], timedelta | None] = {("refresh_rollups", None): None}
    if rules.raw_retention_days:
        wanted["drop_expired", None] = None
    if days := rules.columnstore_after_days:
        for stream in ("meter", "vehicle"):
            wanted["policy_compression", f"{stream}_reading"] = timedelta(days=days)
    return wanted


def _strange_jobs(patient: Patient, rows: list[dict[str, Any]], rules: Rules) -> list[Finding]:
    found = []
    wanted = _wanted_jobs(rules)
    there = {(row["job"], row["hypertable"]): row for row in rows}
    for key, after in wanted.items():
        row = there.get(key)
        name = " of ".join(filter(None, key))
        if row is None:
            found.append(Finding("error", "jobs", f"there is no job {name}", _NOBODY, rules.migrate))
        elif row["after"] != after:
            found.append(
                Finding(
                    "warning",
                    "jobs",
                    f"the job {name} works after {row['after']}",
                    "settings differ",
                    rules.migrate,
                )
            )
    found += [
        Finding(
            "warning",
            "jobs",
            f"there is a job {' of '.join(filter(None, key))} that no setting asks for",
            "it may drop or convert what nobody wants dropped or converted",
            patient.psql("select delete_job({job})", job=row["job_id"]),
        )
        for key, row in there.items()
        if key not in wanted
    ]
    return found


def _failing_jobs(patient: Patient, rows: list[dict[str, Any]]) -> list[Finding]:
    found = []
    for row in rows:
        name = f"{row['job']} ({row['job_id']})"
        if not row["scheduled"]:
            found.append(
                Finding(
                    "error",
                    "jobs",
                    f"the job {name} is off",
                    _NOBODY,
                    patient.psql("select alter_job({job}, scheduled => true)", job=row["job_id"]),
                )
            )
        elif row["last_run_status"] == "Failed":
            found.append(
                Finding(
                    "error",
                    "jobs",
                    f"the last run of job {name} failed: {row['last_error'] or 'the owner can see why'}",
                    f"it has failed {row['failures']} times",
                    patient.psql("call run_job({job})", job=row["job_id"]),
                )
            )
    return found


def rollups(patient: Patient, look: Look) -> list[Finding]:
    """Tell of a refresh that stands still or fails, and of late hours that wait for it."""
    state = look.one(query("doctor_refresh"))
    found = []
    late = max(_LATE, timedelta(seconds=3 * patient.settings.rollup_refresh_s))
    who = "the database's job" if state["is_scheduled"] else "`fleetwatt serve` or `worker`"
    mend = patient.psql("call refresh_rollups()") if state["is_scheduled"] else "fleetwatt serve"
    first = state["first_stored"]
    for row in look.rows(query("rollup_freshness")):
        at = row["refreshed_at"]
        if first is not None and (at or first) < state["now"] - late:
            since = f"since {at:%Y-%m-%d %H:%M} UTC" if at else "ever"
            reason = f": {row['last_error']}" if row["last_error"] else ""
            found.append(
                Finding(
                    "error",
                    "rollups",
                    f"{row['stream']} readings have not been rolled up {since}{reason}",
                    f"{who} does it; answers stay exact and become slow, alerts stand still, nothing "
                    "old can go",
                    mend,
                )
            )
        elif row["failed_at"] is not None and (at is None or row["failed_at"] > at):
            found.append(
                Finding(
                    "error",
                    "rollups",
                    f"the last refresh of {row['stream']} readings failed: {row['last_error']}",
                    "answers stay exact and become slow",
                    mend,
                )
            )
    stale = state["oldest_stale"]
    if stale is not None and stale < state["now"] - _STALE and not found:
        found.append(
            Finding(
                "warning",
                "rollups",
                f"late readings of {stale:%Y-%m-%d %H:%M} UTC are still not rolled up",
                "hours that they touched are read from raw rows, which is slow",
                mend,
            )
        )
    return found
