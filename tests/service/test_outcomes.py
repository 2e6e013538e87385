"""What senders are told and what is stored is what a dictionary would say, whichever way a batch went."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final

import msgspec
import psycopg
import pytest
from hypothesis import given

from service.errors import AtomicRefusedError
from service.ingest import batch, transaction
from service.ingest.decode import decode
from service.ingest.outcome import Outcome
from service.ingest.pipeline import Pipeline
from service.readings import Reading
from service.settings import Settings
from tests.support.payloads import Model, Payload, far_rounds, rounds
from tests.support.strategies import (
    NOW,
    RULE,
    Owner,
    against_a_database,
    altered,
    decoded,
    encode,
    meter,
    rows,
    vehicle,
)

pytestmark = pytest.mark.anyio

_EXAMPLE: Final = itertools.count()
_WRITER_WAITS: Final = (
    "select from pg_locks as l join pg_stat_activity as a using (pid) "
    "where a.datname = current_database() and a.application_name = 'fleetwatt write' and not l.granted"
)
_COLUMNS: Final = {
    "meter": "meter_id, recorded_at, kwh_consumed_ac, voltage",
    "vehicle": "vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp",
}


@pytest.fixture(params=["few", "copy", "careful"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the way that a batch goes: in one statement as few do, by COPY as many do, or looked up first."""
    if request.param == "copy":
        monkeypatch.setattr(transaction, "_FEW", 0)
    name: str = request.param
    return name


async def close_the_straight_way(pipeline: Pipeline, prefix: str) -> None:
    """Send a repeat, after which the next batches are looked up at once."""
    reading = meter(f"{prefix}:first")
    outcome = await pipeline.submit(decoded(reading, reading), "test")
    assert (outcome.accepted, outcome.duplicates) == (1, 1)


async def hand_in(pipeline: Pipeline, prefix: str, payloads: list[Payload]) -> list[Any]:
    """Hand in payloads at once; they arrive in their order. Give what each sender is told."""
    sent = [
        pipeline.submit(
            payload.decoded(prefix),
            f"test:{prefix}",
            atomic=payload.is_atomic,
            keep_refused=payload.keep_refused,
        )
        for payload in payloads
    ]
    return [told(each) for each in await asyncio.gather(*sent, return_exceptions=True)]


def told(result: Outcome | BaseException) -> Any:
    """Give an outcome in the words of the model."""
    if isinstance(result, AtomicRefusedError):
        return sorted(result.conflicts)
    assert isinstance(result, Outcome), result
    assert {rejection.code for rejection in result.rejections} <= {"conflict"}
    return result.accepted, result.duplicates, sorted(rejection.index for rejection in result.rejections)


async def check_tables(owner: Owner, model: Model, prefix: str, writer: str) -> None:
    """Hold what is stored under a prefix, its hot state, letters and counters against the model."""
    for kind, columns in _COLUMNS.items():
        for table, expected in (("reading", model.history(kind)), ("state", model.states(kind))):  # type: ignore[arg-type]
            found = await rows(
                owner,
                f"select {columns} from {kind}_{table} "  # noqa: S608 - our own names
                f"where {kind}_id like '{prefix}-%' order by 1, 2",
            )
            assert [tuple(row.values()) for row in found] == expected, (kind, table)
    [letters] = await rows(owner, f"select count(*) as n from dead_letter where origin = 'test:{prefix}'")  # noqa: S608
    assert letters["n"] == model.letters
    counted = [row for row in await rows(owner, "select * from ingest_minute") if row["writer"] == writer]
    totals = [sum(row[name] for row in counted) for name in ("accepted", "duplicates", "conflicts")]
    assert totals == [model.accepted, model.duplicates, model.conflicts]


async def run(settings: Settings, owner: Owner, given_rounds: list[list[Payload]], way: str) -> None:
    """Hand in rounds of payloads, and hold all that comes of it against the model.

    Each round is a new writer's, which tries the straight way first; careful, one looks all of them up.
    """
    prefix = f"p{next(_EXAMPLE)}"
    model = Model()
    one = msgspec.structs.replace(settings, writers=1)
    for turn in [given_rounds] if way == "careful" else [[each] for each in given_rounds]:
        async with Pipeline(one, prefix) as pipeline:
            if way == "careful":
                await close_the_straight_way(pipeline, prefix)
                model.accepted += 1
                model.duplicates += 1
            for payloads in turn:
                expected = [model.take(payload.decoded(prefix), payload) for payload in payloads]
                assert await hand_in(pipeline, prefix, payloads) == expected
    await check_tables(owner, model, prefix, f"{prefix}/0")


@against_a_database
@given(rounds)
async def test_a_dictionary_says_the_same(
    settings: Settings, owner: Owner, way: str, given_rounds: list[list[Payload]]
) -> None:
    """Several payloads a batch, with repeats and contradictions among them and with what is stored."""
    await run(settings, owner, given_rounds, way)


@against_a_database
@given(far_rounds)
async def test_a_dictionary_says_the_same_of_many_days(
    settings: Settings, owner: Owner, way: str, given_rounds: list[list[Payload]]
) -> None:
    """Where a batch is cut into transactions of a few days each, nothing is told otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "DAYS_MAX", 2)
        await run(settings, owner, given_rounds, way)


@pytest.mark.parametrize("make", [meter, vehicle])
async def test_the_first_to_arrive_stays(
    pipeline: Pipeline, owner: Owner, make: Callable[..., Reading], way: str
) -> None:
    """Of several values under one key in a batch the first is stored, be it the least or the greatest."""
    kind = make.__name__
    if way == "careful":
        await close_the_straight_way(pipeline, "x")
    for number, order in enumerate(itertools.permutations([0.1, 0.2, 0.3])):
        device = f"d-{number}"
        sent = [pipeline.submit(decoded(make(device, kwh=kwh)), "test") for kwh in order]
        outcomes = await asyncio.gather(*sent)
        assert [outcome.accepted for outcome in outcomes] == [1, 0, 0], order
        kept = {row[f"{kind}_id"]: row for row in await rows(owner, f"select * from {kind}_reading")}  # noqa: S608
        assert order[0] in kept[device].values()


# A repeat, a contradiction, and one of which nothing is left.
@pytest.mark.parametrize(
    ("kwh", "end", "expected"),
    [(0.1, "commit", (1, 1, [])), (0.2, "commit", (1, 0, [0])), (0.2, "rollback", (2, 0, []))],
    ids=["repeat", "conflict", "rolled back"],
)
async def test_another_writer_is_faster(
    settings: Settings,
    owner: Owner,
    way: str,
    kwh: float,
    end: str,
    expected: tuple[int, int, list[int]],
) -> None:
    """A key that another transaction is about to store is waited for, and told by what becomes of it."""
    async with (
        Pipeline(settings, "test") as pipeline,
        await psycopg.AsyncConnection.connect(settings.database_url) as other,
    ):
        if way == "careful":
            await close_the_straight_way(pipeline, "x")
        await other.execute("insert into meter_reading values ('m-1', %s, %s, 230)", (NOW, kwh))
        mine = asyncio.create_task(pipeline.submit(decoded(meter(), meter("m-2")), "test"))
        while not await rows(owner, _WRITER_WAITS):
            await asyncio.sleep(0.005)
        await getattr(other, end)()
        assert told(await mine) == expected
    [stored] = await rows(owner, "select * from meter_reading where meter_id = 'm-1'")
    [state] = await rows(owner, "select * from meter_state where meter_id = 'm-1'")
    assert stored["kwh_consumed_ac"] == state["kwh_consumed_ac"] == (kwh if end == "commit" else 0.1)


async def test_nothing_but_refusals(pipeline: Pipeline, owner: Owner) -> None:
    """A batch in which no reading is left keeps its letters, and counts nothing."""
    bad = [decode(encode(altered(meter(f"m-{number}"), voltage=-1)), RULE) for number in range(3)]
    outcomes = await asyncio.gather(*(pipeline.submit(each, "test") for each in bad))
    assert [(each.accepted, each.duplicates, each.rejections) for each in outcomes] == [(0, 0, [])] * 3
    letters = await rows(owner, "select device_id from dead_letter order by 1")
    assert [letter["device_id"] for letter in letters] == ["m-0", "m-1", "m-2"]
    assert await rows(owner, "select * from ingest_minute") == []
