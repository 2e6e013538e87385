"""One batch, one transaction: history, hot state, dead letters and counters together.

The straight way is COPY into the hypertable. A unique violation (SQLSTATE 23505) means that some
readings are stored already; then, and only then, each is looked up by its key, what is new goes through
INSERT ... ON CONFLICT DO NOTHING, and what is not is a duplicate or, with other values, a conflict.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from psycopg import AsyncConnection, errors

from service.errors import AtomicRefusedError
from service.ingest.buffer import Submission
from service.ingest.letters import letter_columns
from service.ingest.outcome import Outcome, Rejection
from service.ingest.refusals import conflict
from service.ingest.streams import METER, VEHICLE, Stream
from service.readings import Kind, Reading, kind_of
from service.sql import query

# Each new day is a chunk with locks of its own that takes a while to make, and others wait meanwhile.
DAYS_MAX = 60

Connection = AsyncConnection[tuple[Any, ...]]


class Entry(NamedTuple):
    """A reading, whose it is, and its place among the submission's readings."""

    reading: Reading
    submission: Submission
    place: int


class Failed(NamedTuple):
    """A reading that the database refused for good, and why."""

    entry: Entry
    rejection: Rejection


class Sorted(NamedTuple):
    """A stream's part of a batch in key order: the first reading of each key, and the others."""

    stream: Stream
    first: list[Entry]
    repeats: list[Entry]


class Written(NamedTuple):
    """What became of a stream's part: the stored, the duplicates, and the conflicts with their wording."""

    stream: Stream
    stored: list[Entry]
    duplicates: list[Entry]
    conflicts: list[Failed]


def entries_of(batch: list[Submission]) -> list[Entry]:
    """List every reading of a batch in the order of arrival."""
    return [
        Entry(reading, submission, place)
        for submission in batch
        for place, reading in enumerate(submission.decoded.readings)
    ]


def pieces(entries: list[Entry]) -> list[list[Entry]]:
    """Cut entries so that no transaction touches more than so many days; nearly always they are one piece.

    Each day is a chunk in the database: one payload of old readings, each of another day, would make
    thousands of them and outgrow the lock table.
    """
    days = {entry.reading.recorded_at.toordinal() for entry in entries}
    if len(days) <= DAYS_MAX:
        return [entries]
    by_day: dict[int, list[Entry]] = {}
    for entry in entries:
        by_day.setdefault(entry.reading.recorded_at.toordinal(), []).append(entry)
    ordered = sorted(by_day)
    return [
        [entry for day in ordered[first : first + DAYS_MAX] for entry in by_day[day]]
        for first in range(0, len(ordered), DAYS_MAX)
    ]


def _key(entry: Entry) -> tuple[str, Any]:
    return entry.reading.device_id, entry.reading.recorded_at


def sort_entries(entries: list[Entry]) -> list[Sorted]:
    """Split by stream and sort by key: meters before vehicles, so that two writers never deadlock."""
    parts: dict[Kind, list[Entry]] = {"meter": [], "vehicle": []}
    for entry in entries:
        parts[kind_of(entry.reading)].append(entry)
    result = []
    for stream in (METER, VEHICLE):
        first: list[Entry] = []
        repeats: list[Entry] = []
        last = None
        for entry in sorted(parts[stream.kind], key=_key):
            key = _key(entry)
            (repeats if key == last else first).append(entry)
            last = key
        if first:
            result.append(Sorted(stream, first, repeats))
    return result


async def store(
    connection: Connection,
    batch: list[Submission],
    entries: list[Entry],
    failed: list[Failed],
    writer: str,
    *,
    straight: bool,
) -> tuple[list[Written], bool]:
    """Write `entries`, and as dead letters `failed` and the refusals of `batch`, in one transaction.

    Gives what became of the readings, and whether the straight way was open. Raises psycopg.Error as it
    comes; AtomicRefusedError (nothing is stored) when an all-or-nothing submission holds a conflict.

    Without a `batch` the entries are a part of one whose letters come later, all at once: the last call
    gets that batch, no entries, and in `failed` the conflicts of all parts too.
    """
    parts = sort_entries(entries)
    async with connection.transaction():
        written: list[Written] = []
        if parts:
            if straight:
                straight = await _copy(connection, parts)
            written = [await _write_part(connection, part, copied=straight) for part in parts]
        conflicts = [refused for part in written for refused in part.conflicts]
        if conflicts and any(submission.atomic for submission in batch):
            raise AtomicRefusedError([entry.place for entry, _ in conflicts])
        for part in written:
            await _update_state(connection, part, writer)
        if batch:
            await _insert_dead_letters(connection, batch, conflicts + failed)
    return written, straight


async def _copy(connection: Connection, parts: list[Sorted]) -> bool:
    """COPY all parts; False, with nothing written, when a key is stored already."""
    try:
        async with connection.transaction(), connection.cursor() as cursor:
            for part in parts:
                async with cursor.copy(part.stream.copy) as copy:
                    await copy.write(part.stream.rows([entry.reading for entry in part.first]))
    except errors.UniqueViolation:
        return False
    return True


async def _write_part(connection: Connection, part: Sorted, *, copied: bool) -> Written:
    """Store what is new of a part, unless COPY did, and tell the rest apart: duplicates and conflicts.

    What is there already is found first, so that a replay costs one look-up a reading and no insert. A
    repeat within the batch is held against what is stored now: the verdict is the same whether two
    readings of one key arrive together or apart.
    """
    known = {} if copied else await _compare(connection, part.stream, part.first)
    new = [entry for place, entry in enumerate(part.first) if place not in known]
    # Another writer may have stored some of them in the meantime.
    overtaken = set() if copied else await _insert_new(connection, part.stream, new)
    verdicts = [(part.first[place], differs) for place, differs in known.items()]
    late = [new[place] for place in sorted(overtaken)] + part.repeats
    compared = await _compare(connection, part.stream, late)
    verdicts += [(entry, compared.get(place, False)) for place, entry in enumerate(late)]
    return Written(
        part.stream,
        stored=[entry for place, entry in enumerate(new) if place not in overtaken],
        duplicates=[entry for entry, differs in verdicts if not differs],
        conflicts=[
            Failed(entry, conflict(entry.submission.decoded, entry.place))
            for entry, differs in verdicts
            if differs
        ],
    )


async def _compare(connection: Connection, stream: Stream, entries: list[Entry]) -> dict[int, bool]:
    """Find which entries' keys are stored: their places, and whether the stored values differ."""
    if not entries:
        return {}
    cursor = await connection.execute(stream.compare, stream.columns([entry.reading for entry in entries]))
    return {place - 1: differs for place, differs in await cursor.fetchall()}


async def _insert_new(connection: Connection, stream: Stream, entries: list[Entry]) -> set[int]:
    """Insert entries; give the places of those whose key was stored already."""
    if not entries:
        return set()
    cursor = await connection.execute(stream.insert_new, stream.columns([entry.reading for entry in entries]))
    return {place - 1 for (place,) in await cursor.fetchall()}


async def _update_state(connection: Connection, part: Written, writer: str) -> None:
    """Bring the hot state and the counters up to what was stored."""
    # Sorted by device and time, so the last of each device is its newest.
    newest = {entry.reading.device_id: entry.reading for entry in part.stored}
    if newest:
        await connection.execute(part.stream.upsert_state, part.stream.columns(list(newest.values())))
    now = time.time()
    lags = [now - reading.recorded_at.timestamp() for reading in newest.values()]
    await connection.execute(
        query("count_ingest"),
        {
            "writer": writer,
            "kind": part.stream.kind,
            "accepted": len(part.stored),
            "duplicates": len(part.duplicates),
            "conflicts": len(part.conflicts),
            "lag_s_count": len(lags),
            "lag_s_sum": sum(lags),
            "lag_s_max": max(lags, default=0.0),
        },
    )


async def _insert_dead_letters(connection: Connection, batch: list[Submission], failed: list[Failed]) -> None:
    refused = [
        (submission, rejection)
        for submission in batch
        if submission.keep_refused and not submission.atomic
        for rejection in submission.rejections
    ]
    refused += [(entry.submission, rejection) for entry, rejection in failed if entry.submission.keep_refused]
    if refused:
        await connection.execute(query("insert_dead_letters"), letter_columns(refused))


def outcomes(batch: list[Submission], written: list[Written], failed: list[Failed]) -> list[Outcome]:
    """Say for each submission of a batch what the commit did with it, in the order of the batch."""
    duplicates: dict[int, int] = {}
    refused: dict[int, list[Rejection]] = {}
    for part in written:
        for entry in part.duplicates:
            duplicates[id(entry.submission)] = duplicates.get(id(entry.submission), 0) + 1
    conflicts = [refusal for part in written for refusal in part.conflicts]
    for entry, rejection in conflicts + failed:
        refused.setdefault(id(entry.submission), []).append(rejection)
    result = []
    for submission in batch:
        twice = duplicates.get(id(submission), 0)
        rejections = refused.get(id(submission), [])
        accepted = len(submission.decoded.readings) - twice - len(rejections)
        result.append(Outcome(accepted=accepted, duplicates=twice, rejections=rejections))
    return result
