"""Messages about sessions in every order, with repeats: the sessions are always those that they tell of."""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sessions.messages import SessionMessages
from tests.service import test_sessions_messages
from tests.service.test_sessions_messages import LETTERS, WAITING, end, spans, start, take
from tests.support.strategies import Owner, against_a_database, at, rfc3339, rows

pytestmark = pytest.mark.anyio

messages = test_sessions_messages.messages
_METER: Final = itertools.count()
Sessions = list[tuple[str, float, float | None]]
Sent = list[dict[str, Any]]


def on(meter: str, sent: Sent) -> Sent:
    """Give messages the ids of a meter of their own, so that one database serves many histories."""
    return [
        each | {"sessionId": f"{meter}-{each['sessionId']}"} if "sessionId" in each else each for each in sent
    ]


async def waiting(owner: Owner, meter: str) -> list[float]:
    """Give the ends that wait on a meter, in minutes; nothing else may wait there."""
    found = [row for row in await rows(owner, WAITING) if row["meter_id"] == meter]
    assert [row for row in found if row["started_at"] is not None] == []
    return sorted((row["ended_at"] - at(0)).total_seconds() / 60 for row in found)


_ONE = [start(0, sessionId="s-1"), end(60)]
_TWO = [start(30, "v-2"), end(60)]


@pytest.mark.parametrize(
    ("sent", "expected", "left"),
    [
        ([start(0), end(30), *_TWO], [("v-1", 0, 30), ("v-2", 30, 60)], []),
        (
            [
                start(0, sessionId="s-1"),
                end(30, sessionId="s-1"),
                start(30, "v-2", sessionId="s-2"),
                end(60, sessionId="s-2"),
            ],
            [("v-1", 0, 30), ("v-2", 30, 60)],
            [],
        ),
        ([start(0, sessionId="s-1"), end(30, sessionId="s-1"), *_TWO], [("v-1", 0, 30), ("v-2", 30, 60)], []),
        ([*_ONE, end(60, sessionId="s-1"), end(30)], [("v-1", 0, 60)], [30]),
        ([*_ONE, end(30), end(60, sessionId="s-1")], [("v-1", 0, 60)], [30]),
        ([*_ONE, end(30), end(60, sessionId="s-1"), end(90)], [("v-1", 0, 60)], [30, 90]),
        ([*_ONE, end(90), end(60, sessionId="s-1")], [("v-1", 0, 60)], [90]),
        ([start(0, sessionId="s-1", endedAt=rfc3339(at(60))), end(60), end(30)], [("v-1", 0, 60)], [30]),
    ],
    ids=["unnamed", "named", "mixed", "confirmed", "guessed", "all", "late", "whole"],
)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_every_order(
    messages: SessionMessages, owner: Owner, sent: Sent, expected: Sessions, left: list[float], times: int
) -> None:
    """Each order there is, each message once or twice, then all of them again: always the same sessions."""
    for order in itertools.permutations(sent):
        meter = f"m-{next(_METER)}"
        own = on(meter, list(order))
        await take(messages, *[each for each in own for _ in range(times)], meter=meter)
        assert (await spans(owner, meter), await waiting(owner, meter)) == (expected, left), order
        await take(messages, *own, meter=meter)
        assert (await spans(owner, meter), await waiting(owner, meter)) == (expected, left), order
    assert await rows(owner, LETTERS) == []


async def test_a_lost_end_leaves_the_meter_to_the_start_that_came_first(
    messages: SessionMessages, owner: Owner
) -> None:
    """Two starts and one end: the first start that is handled has the end, the other one waits in vain."""
    for order in itertools.permutations([start(0), start(30, "v-2"), end(60)]):
        meter = f"m-{next(_METER)}"
        await take(messages, *order, meter=meter)
        early = next(each for each in order if "startedAt" in each) == start(0)
        assert await spans(owner, meter) == [("v-1", 0, 60) if early else ("v-2", 30, 60)], order
        left = [row["vehicle_id"] for row in await rows(owner, WAITING) if row["meter_id"] == meter]
        assert left == (["v-2"] if early else ["v-1"])


@st.composite
def histories(draw: st.DrawFn) -> tuple[Sessions, Sent, set[float]]:
    """Give sessions of one meter that do not overlap, their messages in any order, and ends of no session.

    A session with a name may be ended by it, without it, or both; some messages come twice. What ends none
    lies within a session whose end is named: elsewhere it would be the end of one.
    """
    sessions: Sessions = []
    sent: Sent = []
    nobodys: set[float] = set()
    last = 0
    many = draw(st.integers(1, 4))
    for number in range(many):
        first = last + draw(st.integers(0, 3))
        last = first + draw(st.integers(1, 6))
        name = {"sessionId": f"s-{number}"} if draw(st.booleans()) else {}
        begun = start(first, **name)
        if number == many - 1 and draw(st.booleans()):
            sessions.append(("v-1", first, None))
            sent.append(begun)
            continue
        sessions.append(("v-1", first, last))
        over = [[end(last)], [end(last, **name)], [end(last), end(last, **name)]]
        whole = start(first, endedAt=rfc3339(at(last)), **name)
        mine = draw(st.sampled_from([[whole], [whole, *over[2]], *([begun, *each] for each in over)]))
        sent += mine
        if whole in mine or (name and end(last, **name) in mine):
            for moment in draw(st.sets(st.sampled_from(range(first + 1, last + 1)), max_size=2)) - {last}:
                nobodys.add(moment)
                sent.append(end(moment))
    repeats = draw(st.lists(st.sampled_from(sent), max_size=4))
    return sessions, draw(st.permutations(sent + repeats)), nobodys


@against_a_database
@given(histories())
async def test_any_order_and_repeats_give_the_same_sessions(
    messages: SessionMessages, owner: Owner, history: tuple[Sessions, Sent, set[float]]
) -> None:
    """Whatever the order of the messages of a meter, its sessions are those that they tell of."""
    sessions, sent, nobodys = history
    meter = f"h-{next(_METER)}"
    for _ in range(2):
        await take(messages, *on(meter, sent), meter=meter)
        assert await spans(owner, meter) == sessions
        assert await waiting(owner, meter) == sorted(nobodys)
    assert await rows(owner, LETTERS) == []
