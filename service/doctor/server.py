"""The database as a server: its clock, its settings, its roles, its schema."""

from __future__ import annotations

from typing import Any, Final

from service import migrations
from service.doctor.finding import Finding, Patient
from service.doctor.look import Look
from service.sql import query

_SKEW_S: Final = 2.0
_MIGRATE: Final = "fleetwatt migrate"


def durability(patient: Patient, server: dict[str, Any]) -> list[Finding]:
    """Tell of settings by which a committed reading may be lost."""
    found = []
    for name, why in (
        ("fsync", "after a crash of the machine the database may be damaged beyond repair"),
        ("full_page_writes", "a page that is half written in a crash cannot be repaired"),
    ):
        if not server[name]:
            found.append(Finding("error", "durability", f"{name} is off", why, _set(patient, f"{name} = on")))
    if server["synchronous_commit"] == "off":
        found.append(
            Finding(
                "error",
                "durability",
                "synchronous_commit is off",
                "devices are told that a reading is stored before it is on disk: a crash loses "
                "acknowledged readings",
                _set(patient, "synchronous_commit = on"),
            )
        )
    return found


def _set(patient: Patient, setting: str) -> str:
    return patient.psql("alter system set {setting}", "select pg_reload_conf()", setting=setting)


def clock(skew_s: float, uncertain_s: float, ahead_s: float) -> list[Finding]:
    """Judge by how much the database's clock is ahead of ours."""
    if abs(skew_s) <= _SKEW_S + uncertain_s:
        return []
    return [
        Finding(
            "error" if abs(skew_s) > ahead_s else "warning",
            "clock",
            f"the database's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} "
            "this machine's",
            "readings are judged by the service's clock and hours are closed by the database's: lag is "
            "wrong, and "
            "readings may be refused, or hours rolled up before they are over",
            "timedatectl set-ntp true    # on both machines",
        )
    ]


def schema(_patient: Patient, look: Look) -> list[Finding]:
    """Tell whether the schema is the one that this version of fleetwatt needs."""
    rows = look.rows(query("doctor_revision"))
    revision, head = (rows[0]["revision"] if rows else "none"), migrations.head()
    if revision == head:
        return []
    if revision == "none" or revision < head:
        return [
            Finding(
                "error",
                "schema",
                f"the schema is at {revision}, this version needs {head}",
                "queries meet tables and functions that are not there",
                _MIGRATE,
            )
        ]
    return [
        Finding(
            "error",
            "schema",
            f"the schema is at {revision}, newer than this version knows ({head})",
            "the database belongs to a newer fleetwatt",
            "install that release, see docs/upgrading.md",
        )
    ]


def roles(patient: Patient, look: Look, server: dict[str, Any]) -> list[Finding]:
    """Tell of roles that are missing, or may do more or less than they should."""
    found = []
    service = patient.settings.database_url and (server["is_superuser"] or server["is_owner"])
    if service:
        found.append(
            Finding(
                "warning",
                "roles",
                f"the service logs in as {server['login']}, who may change and drop history",
                "who has the service's login could remove readings; fleetwatt_service can only add them",
                "set FLEETWATT_DATABASE_URL to a login as fleetwatt_service",
            )
        )
    for role in look.rows(query("doctor_roles")):
        name = role["name"]
        if not role["is_there"]:
            found.append(
                Finding("error", "roles", f"there is no role {name}", "rights are given to it", _MIGRATE)
            )
        elif name != "fleetwatt_owner" and (role["has_power"] or role["is_owner"]):
            found.append(
                Finding(
                    "warning",
                    "roles",
                    f"the role {name} has rights of an administrator",
                    "it is meant to be unable to change or drop history",
                    patient.psql(
                        "alter role {role} nosuperuser nocreaterole nocreatedb noreplication nobypassrls",
                        "revoke fleetwatt_owner from {role}",
                        role=name,
                    ),
                )
            )
        elif name == "fleetwatt_owner" and not role["may_log_in"] and look.rows(query("doctor_jobs")):
            found.append(
                Finding(
                    "error",
                    "roles",
                    "the role fleetwatt_owner may not log in",
                    "TimescaleDB runs no job of such a role: nothing is rolled up",
                    _MIGRATE,
                )
            )
    return found + [_right(patient, right) for right in look.rows(query("doctor_rights"))]


def _right(patient: Patient, right: dict[str, Any]) -> Finding:
    what = f"{right['privilege']} on {right['relation']}"
    if right["lacks"]:
        why = "the service cannot do its work"
        return Finding("error", "roles", f"fleetwatt_service lacks {what}", why, _MIGRATE)
    return Finding(
        "warning",
        "roles",
        f"{right['grantee']} was given {what}",
        "history should be read and changed by nobody but fleetwatt's roles",
        patient.psql("revoke {what} from {grantee}", what=what, grantee=right["grantee"]),
    )
