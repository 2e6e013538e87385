"""The board of states, what is said of it, and how much at most."""

from __future__ import annotations

import asyncio
import json
import zlib

from hypothesis import given
from hypothesis import strategies as st

from service.readings import Kind
from service.stream.board import EVENT_STATES_MAX, Board, News
from service.stream.look import Wanted
from service.stream.pace import Pace
from service.stream.said import GZIP_HEAD, Said, event

BOTH: frozenset[Kind] = frozenset({"vehicle", "meter"})
# What is done: states are put (a kind, devices, a value), or one of the clients takes one event.
CHANGES = st.tuples(
    st.sampled_from(["vehicle", "meter"]),
    st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True),
    st.integers(0, 3),
)
TAKES = st.integers(0, 2)


def state(value: int) -> bytes:
    """Give some state."""
    return json.dumps({"value": value}).encode()


def told(news: News) -> dict[str, list[int]]:
    """Give the values in an event by kind."""
    assert news.said is not None
    data = json.loads(news.said.plain.split(b"data: ")[1])
    return {kind: [each["value"] for each in data[f"{kind}s"]] for kind in ("vehicle", "meter")}


@given(st.lists(st.one_of(CHANGES, TAKES), max_size=60))
def test_whoever_goes_on_taking_knows_the_newest_states(steps: list[object]) -> None:
    """However seldom a client takes, in the end it has been told the last state of each device."""
    board = Board()
    newest: dict[tuple[str, int], int] = {}
    # Each client: the version seen, and what it was told.
    seen = [0, 0, 0]
    known: list[dict[tuple[str, int], int]] = [{}, {}, {}]

    def take(client: int) -> bool:
        news = board.news(seen[client], BOTH)
        assert news.states <= EVENT_STATES_MAX
        assert (news.said is None) == (news.states == 0)
        assert news.version >= seen[client]
        seen[client] = news.version
        if news.said is None:
            return False
        data = json.loads(news.said.plain.split(b"data: ")[1])
        for kind in ("vehicle", "meter"):
            known[client].update({(kind, each["id"]): each["value"] for each in data[f"{kind}s"]})
        return True

    for step in steps:
        if isinstance(step, int):
            take(step)
            continue
        assert isinstance(step, tuple)
        kind, devices, value = step
        put = [(str(each), json.dumps({"id": each, "value": value}).encode()) for each in devices]
        changed = board.put(kind, put)
        assert changed == sum(newest.get((kind, each)) != value for each in devices)
        newest.update({(kind, each): value for each in devices})
    for client in range(3):
        while take(client):
            pass
        assert known[client] == newest


def test_an_event_holds_a_thousand_and_the_oldest_come_first() -> None:
    """What does not fit follows, and what changes meanwhile is told once."""
    board = Board()
    for start in range(0, 2500, 500):
        board.put("meter", [(f"m-{number}", state(number)) for number in range(start, start + 500)])
    first = board.news(0, BOTH)
    assert told(first)["meter"] == list(range(1000))
    board.put("meter", [("m-1000", state(-1))])
    second = board.news(first.version, BOTH)
    assert told(second)["meter"] == list(range(1001, 2000))
    third = board.news(second.version, BOTH)
    assert told(third)["meter"] == [*range(2000, 2500), -1]
    assert board.news(third.version, BOTH) == News(None, third.version)


def test_kinds_and_ids() -> None:
    """A filter hides others, and they do not come back as news later."""
    board = Board()
    board.put("meter", [("m-1", state(1)), ("m-2", state(2))])
    board.put("vehicle", [("v-1", state(3))])
    assert told(board.news(0, frozenset({"vehicle"}))) == {"vehicle": [3], "meter": []}
    assert told(board.news_of(0, {"meter": frozenset({"m-2", "m-9"})})) == {"vehicle": [], "meter": [2]}
    assert board.news_of(board.version, {"meter": frozenset({"m-2"})}).said is None
    board.put("meter", [("m-1", state(9))])
    nothing = board.news(board.version - 1, frozenset({"vehicle"}))
    assert (nothing.said, nothing.version) == (None, board.version)


def test_clients_at_one_version_share_their_event() -> None:
    """It is put together, and packed, once for all of them."""
    board = Board()
    board.put("meter", [("m-1", state(1))])
    said = board.news(0, BOTH).said
    assert said is not None
    assert board.news(0, BOTH).said is said
    assert said.packed() is said.packed()
    board.put("meter", [("m-2", state(1))])
    assert board.news(0, BOTH).said is not said


@given(st.lists(st.binary(max_size=500), max_size=8))
def test_packed_parts_are_one_stream(parts: list[bytes]) -> None:
    """Whatever parts a client is told, in whatever order, they unpack to what was said, each as it comes."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    unpacker.decompress(GZIP_HEAD)
    for part in parts:
        assert unpacker.decompress(Said(part).packed()) == part


def test_events() -> None:
    """A name and a line of data, and a blank line after it."""
    assert event("beat", {"time": "now"}).plain == b'event: beat\ndata: {"time":"now"}\n\n'


def test_what_is_wanted_together() -> None:
    """Ids add up, all is all, and a thousand ids and more are looked for in all."""
    nobody, some, other, everything = Wanted(), Wanted(frozenset("ab")), Wanted(frozenset("c")), Wanted(None)
    assert nobody.joined(some) == some
    assert some.joined(other) == Wanted(frozenset("abc"))
    assert some.joined(everything) == everything == everything.joined(nobody)
    assert Wanted(frozenset(map(str, range(1000)))).joined(other) == everything
    assert nobody.within(some)
    assert some.within(everything)
    assert not everything.within(some)
    assert not other.within(some)


async def _send(pace: Pace, sizes: list[int]) -> list[int]:
    sent = []

    async def client(number: int, size: int) -> None:
        await pace.waited()
        pace.spend(size)
        sent.append(number)

    await asyncio.gather(*(client(number, size) for number, size in enumerate(sizes)))
    return sent


def test_pace() -> None:
    """What was saved up goes at once; then clients wait, and come in the order in which they asked."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        pace = Pace(100_000)
        began = loop.time()
        assert not await pace.waited()
        assert await _send(pace, [50_000, 50_000]) == [0, 1]
        assert await _send(pace, [20_000, 20_000, 1]) == [0, 1, 2]
        # Of 140,001 bytes in all 100,000 were saved up, and the last two had to wait.
        assert loop.time() - began >= 0.2

    asyncio.run(run())
