"""One batch, one transaction: history, dead letters and counters together; the hot state follows the history.

The straight way is COPY into the hypertable. A unique violation (SQLSTATE 23505) means that some readings
are stored already, or came twice in the batch; then, and only then, each is looked up by its key, what is
new goes through INSERT ... ON CONFLICT DO NOTHING, and what is not is a duplicate or, with other values, a
conflict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection, errors

from service.errors import AtomicRefusedError
from service.ingest.batch import Batch
from service.ingest.buffer import Submission
from service.ingest.letters import letters_of
from service.ingest.outcome import Outcome, Rejection
from service.ingest.refusals import conflict
from service.ingest.streams import METER, VEHICLE, Stream, rows, values
from service.readings import Kind, MeterReading, VehicleReading
from service.sql import query

# Up to so many readings go without COPY, in one statement with the rest. Measured: with 20 it takes half of
# our time and three quarters of the server's, with 200 half of ours and as much of the server's; with 2,000
# COPY takes two thirds of the server's.
_FEW: Final = 250

Connection = AsyncConnection[tuple[Any, ...]]


class KeysStoredError(Exception):
    """The straight way is closed: some keys of the batch are stored already. Nothing was written."""


class Failed(NamedTuple):
    """A reading that was refused for good, whose it is, and why."""

    submission: Submission
    rejection: Rejection


class Lags(NamedTuple):
    """How late the newest readings of devices were when they were written: sum, maximum and each, s."""

    total_s: float = 0.0
    most_s: float = 0.0
    each_s: Sequence[float] = ()


class Part(NamedTuple):
    """A stream's part of a batch, as rows."""

    stream: Stream
    rows: list[tuple[Any, ...]]


class Written(NamedTuple):
    """What became of a stream's part: how many were stored, where the duplicates are, and the conflicts."""

    kind: Kind
    stored: int
    lags: Lags
    duplicates: list[int]
    conflicts: list[Failed]


async def store(
    connection: Connection,
    batch: Batch,
    places: Sequence[int],
    letters: Sequence[Failed] | None,
    writer: str,
    *,
    straight: bool,
) -> list[Written]:
    """Write the readings at `places` of a batch in one transaction; give what became of them.

    With them go the dead letters of the batch: what its submissions were refused for, these readings'
    conflicts, and `letters`. With None there are none: a part of a batch, whose letters come in a last call,
    all at once.

    Raises psycopg.Error as it comes; KeysStoredError when `straight` and that way is closed;
    AtomicRefusedError when an all-or-nothing submission holds a conflict. Each leaves nothing stored.
    """
    refused = None if letters is None else [*_refusals(batch), *letters]
    parts = _by_stream(batch, places)
    if straight:
        return await _store_straight(connection, [_part(*part, batch) for part in parts], refused, writer)
    async with connection.transaction():
        written = [await _store_new(connection, stream, batch, part) for stream, part in parts]
        conflicts = [each for part in written for each in part.conflicts]
        if conflicts and any(submission.atomic for submission in batch.submissions):
            raise AtomicRefusedError([each.rejection.index for each in conflicts])
        if refused is not None:
            await _insert_dead_letters(connection, [*refused, *conflicts])
        if written:
            await _finish(connection, [], written, writer)
    return written


async def _store_straight(
    connection: Connection, parts: list[Part], refused: list[Failed] | None, writer: str
) -> list[Written]:
    """Store readings all of which must be new; a small batch without letters in a single statement."""
    written = [Written(part.stream.kind, len(part.rows), _lags(part.rows), [], []) for part in parts]
    few = sum(len(part.rows) for part in parts) <= _FEW
    try:
        if parts and few and not refused:
            await _finish(connection, parts, written, writer)
            return written
        async with connection.transaction():
            for part in parts:
                async with connection.cursor() as cursor, cursor.copy(part.stream.copy) as copy:
                    await copy.write(rows(part.rows))
            await _insert_dead_letters(connection, refused or [])
            if written:
                await _finish(connection, [], written, writer)
    except errors.UniqueViolation as error:
        raise KeysStoredError from error
    return written


def _part(stream: Stream, places: list[int], batch: Batch) -> Part:
    """Give readings in the order of keys: so do all writers, and neighbours in the index come together."""
    return Part(stream, sorted(values([batch.readings[place] for place in places])))


def _by_stream(batch: Batch, places: Sequence[int]) -> list[tuple[Stream, list[int]]]:
    """Split places by stream: meters before vehicles, so that two writers never wait in a circle."""
    readings = batch.readings
    meters = [place for place in places if isinstance(readings[place], MeterReading)]
    vehicles = [place for place in places if isinstance(readings[place], VehicleReading)]
    return [(stream, part) for stream, part in ((METER, meters), (VEHICLE, vehicles)) if part]


async def _store_new(connection: Connection, stream: Stream, batch: Batch, places: list[int]) -> Written:
    """Store what is new of a part and tell the rest apart: duplicates and conflicts.

    What is there already is found first, so that a replay costs one look-up a reading and no insert. A
    repeat within the batch is held against what is stored now: the verdict is the same whether two
    readings of one key arrive together or apart.
    """
    tuples = values([batch.readings[place] for place in places])
    first, repeats = _tell_repeats(tuples)
    verdicts = await _compare(connection, stream, tuples, first)
    new = [number for number, differs in verdicts.items() if not differs]
    # Another writer may have stored some of them in the meantime.
    overtaken = await _insert_new(connection, stream, tuples, new)
    late = await _compare(connection, stream, tuples, overtaken + repeats)
    differing = {number for number, differs in (verdicts | late).items() if differs}
    stored = set(new).difference(overtaken)
    return Written(
        stream.kind,
        len(stored),
        _lags([tuples[number] for number in first if number in stored]),
        duplicates=[
            place for number, place in enumerate(places) if number not in stored and number not in differing
        ],
        conflicts=[_conflict(batch, places[number]) for number in sorted(differing)],
    )


def _conflict(batch: Batch, place: int) -> Failed:
    submission, within = batch.origin(place)
    return Failed(submission, conflict(submission.decoded, within))


def _tell_repeats(tuples: list[tuple[Any, ...]]) -> tuple[list[int], list[int]]:
    """Order readings by key; give the numbers of the first to arrive of each key, and of all others."""
    first: list[int] = []
    repeats: list[int] = []
    last: tuple[Any, Any] | None = None
    for device, moment, number in sorted([(each[0], each[1], number) for number, each in enumerate(tuples)]):
        key = device, moment
        (repeats if key == last else first).append(number)
        last = key
    return first, repeats


async def _compare(
    connection: Connection, stream: Stream, tuples: list[tuple[Any, ...]], numbers: list[int]
) -> dict[int, bool]:
    """Find the readings that are not stored as they are: new ones, and True for those with other values."""
    if not numbers:
        return {}
    chosen = [tuples[number] for number in numbers]
    times = [each[1] for each in chosen]
    parameters = {**stream.columns(chosen), "earliest": min(times), "latest": max(times)}
    # Planned anew each time: with bounds that it knows the planner leaves out all other chunks.
    cursor = await connection.execute(stream.compare, parameters, prepare=False)
    return {numbers[place - 1]: differs for place, differs in await cursor.fetchall()}


async def _insert_new(
    connection: Connection, stream: Stream, tuples: list[tuple[Any, ...]], numbers: list[int]
) -> list[int]:
    """Insert readings; give the numbers of those whose key was stored already."""
    if not numbers:
        return []
    chosen = [tuples[number] for number in numbers]
    cursor = await connection.execute(stream.insert_new, stream.columns(chosen))
    return [numbers[place - 1] for (place,) in await cursor.fetchall()]


def _lags(tuples: list[tuple[Any, ...]]) -> Lags:
    """Measure how late the newest reading of each device is; `tuples` are in the order of their keys."""
    newest = {each[0]: each[1] for each in tuples}.values()
    if not newest:
        return Lags()
    now = datetime.now(UTC)
    each_s = [(now - moment).total_seconds() for moment in newest]
    return Lags(sum(each_s), max(each_s), each_s)


async def _finish(connection: Connection, parts: list[Part], written: list[Written], writer: str) -> None:
    """Store the rows of a small batch, if it is one, and count what became of all."""
    rows_of = {part.stream.kind: part.rows for part in parts}
    await connection.execute(
        query("finish_batch"),
        {
            **METER.columns(rows_of.get("meter", []), "meter_"),
            **VEHICLE.columns(rows_of.get("vehicle", []), "vehicle_"),
            "writer": writer,
            "kind": [part.kind for part in written],
            "accepted": [part.stored for part in written],
            "duplicates": [len(part.duplicates) for part in written],
            "conflicts": [len(part.conflicts) for part in written],
            "lag_s_count": [len(part.lags.each_s) for part in written],
            "lag_s_sum": [part.lags.total_s for part in written],
            "lag_s_max": [part.lags.most_s for part in written],
        },
    )


def _refusals(batch: Batch) -> list[Failed]:
    """List what decoding refused and what is to become a dead letter; nothing of it of an atomic one."""
    return [
        Failed(submission, rejection)
        for submission in batch.submissions
        if not submission.atomic
        for rejection in submission.rejections
    ]


async def _insert_dead_letters(connection: Connection, failed: list[Failed]) -> None:
    refused = [each for each in failed if each.submission.keep_refused]
    if not refused:
        return
    letters = letters_of(refused)
    # Planned anew each time: what is right for a few letters would be wrong for the many of a large file.
    cursor = await connection.execute(query("insert_dead_letters"), letters.columns, prepare=False)
    # Set, not added to: a transaction may have been tried before.
    for submission, _ in letters.owners:
        submission.known = 0
    for (place,) in await cursor.fetchall():
        submission, refusals = letters.owners[place - 1]
        submission.known += refusals


def outcomes(batch: Batch, written: list[Written], failed: list[Failed]) -> list[Outcome]:
    """Say for each submission of a batch what the commit did with it, in the order of the batch."""
    duplicates = Counter(batch.owner(place) for part in written for place in part.duplicates)
    refused: dict[int, list[Rejection]] = {}
    for submission, rejection in [*(each for part in written for each in part.conflicts), *failed]:
        refused.setdefault(id(submission), []).append(rejection)
    result = []
    for number, submission in enumerate(batch.submissions):
        twice = duplicates[number]
        rejections = refused.get(id(submission), [])
        accepted = len(submission.decoded.readings) - twice - len(rejections)
        result.append(
            Outcome(accepted=accepted, duplicates=twice, rejections=rejections, known=submission.known)
        )
    return result
