"""Memory and disk: whether the chunks that are written fit, and for how long there is room."""

from __future__ import annotations

from pathlib import Path
from shutil import disk_usage
from typing import Any, Final

from service.doctor.finding import Finding, Patient, machine_bytes, size
from service.doctor.look import Look
from service.maintenance.retention import Rules
from service.sql import query

# Of memory, for the chunks of all streams that are written right now, with their indexes.
_SHARE: Final = 0.25
_HOURS: Final = (24, 12, 8, 6, 4, 3, 2, 1)
_WARN_DAYS: Final = 30.0
_ERROR_DAYS: Final = 7.0
# Less history than this tells nothing of a day.
_LEAST_DAYS: Final = 1 / 24


def chunks(patient: Patient, look: Look, server: dict[str, Any]) -> list[Finding]:
    """Judge the chunks that are being written by memory, and the shared buffers by their indexes."""
    growth = look.one(query("doctor_growth"))
    if not growth["recent_days"] or growth["recent_days"] < _LEAST_DAYS:
        return []
    rules = Rules.there(look.one(query("doctor_lifecycle")))
    # What is not on this machine tells of its memory only by what the planner may count on.
    memory = machine_bytes() if patient.database_is_here else server["effective_cache_size"] * 4 / 3
    return judge_chunks(
        patient,
        bytes_a_day=growth["recent_bytes"] / growth["recent_days"],
        index_bytes_a_day=growth["recent_index_bytes"] / growth["recent_days"],
        rules=rules,
        memory=memory,
        shared_buffers=server["shared_buffers"],
    )


def judge_chunks(
    patient: Patient,
    *,
    bytes_a_day: float,
    index_bytes_a_day: float,
    rules: Rules,
    memory: float,
    shared_buffers: float,
) -> list[Finding]:
    """Judge a rate of growth, in bytes, by the length of chunks and by memory."""
    open_bytes = bytes_a_day * rules.chunk_hours / 24
    found = []
    if open_bytes > memory * _SHARE:
        fits = next((each for each in _HOURS if bytes_a_day * each / 24 <= memory * _SHARE), 1)
        found.append(
            Finding(
                "warning",
                "memory",
                f"the chunks that are written grow to {size(open_bytes)}, more than a quarter of "
                f"{size(memory)} of memory",
                "once they do not fit, each reading costs a read from disk",
                f"{rules._replace(chunk_hours=fits).migrate}    # and set it for good",
            )
        )
    index_bytes = index_bytes_a_day * rules.chunk_hours / 24
    if index_bytes > shared_buffers and not found:
        megabytes = int(min(memory * _SHARE, index_bytes * 1.5) / 2**20)
        found.append(
            Finding(
                "warning",
                "memory",
                f"the indexes of the chunks that are written grow to {size(index_bytes)}, shared_buffers is "
                f"{size(shared_buffers)}",
                "writing to an index that does not fit there reads from outside the database for each "
                "reading",
                patient.psql("alter system set shared_buffers = '{megabytes}MB'", megabytes=megabytes)
                + "    # and restart it",
            )
        )
    return found


def disk(patient: Patient, look: Look) -> list[Finding]:
    """Reckon for how many days the disk of the embedded database has room, at today's rate."""
    if patient.running is None:
        return []
    growth = look.one(query("doctor_growth"))
    if not growth["recent_days"] or growth["recent_days"] < _LEAST_DAYS:
        a_day = 0.0
    else:
        a_day = growth["recent_bytes"] / growth["recent_days"]
    rules = Rules.there(look.one(query("doctor_lifecycle")))
    if rules.columnstore_after_days and growth["packed_days"]:
        a_day = min(a_day, growth["packed_bytes"] / growth["packed_days"])
    free = disk_usage(Path(patient.running.data_dir)).free
    return judge_disk(
        patient.running.data_dir,
        free=free,
        a_day=a_day,
        # What comes until as much goes as comes.
        most=rules.raw_retention_days * a_day - growth["bytes"] if rules.raw_retention_days else None,
        rules=rules,
    )


def judge_disk(folder: str, *, free: float, a_day: float, most: float | None, rules: Rules) -> list[Finding]:
    """Judge free bytes by the growth a day, of which no more than `most` (if not None) comes in all."""
    if most is not None and most < free * 0.9:
        a_day = 0.0
    days = free / a_day if a_day > 0 else float("inf")
    kept = min(90, rules.raw_retention_days // 2 or 90)
    if days >= _WARN_DAYS and free > 2**30:
        return []
    return [
        Finding(
            "error" if days < _ERROR_DAYS or free <= 2**30 else "warning",
            "disk",
            f"{size(free)} are free at {folder}"
            + (f": room for {days:.0f} days at {size(a_day)} a day" if a_day > 0 else ""),
            "a database without room takes no reading",
            f"{rules._replace(raw_retention_days=kept).migrate}    "
            "# drops readings older than that; or add room",
        )
    ]
