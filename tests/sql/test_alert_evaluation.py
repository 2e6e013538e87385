"""When alerts are judged anew: whenever anything that they depend on has changed, and only then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.support.alert_data import charge, refresh, settings, told
from tests.support.servers import Postgres
from tests.support.strategies import Owner, rows

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


async def evaluated(owner: Owner) -> datetime | None:
    """Evaluate, and give when alerts were last judged."""
    await owner.execute("select evaluate_alerts()")
    found = await rows(owner, "select evaluated_at from alert_evaluation")
    return found[0]["evaluated_at"] if found else None


@pytest.fixture
async def judged(owner: Owner) -> datetime:
    """Give a pair that fails, and when it was last judged."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR
    await charge(owner, now - 3 * HOUR, hours=2, ratio=0.7)
    await refresh(owner)
    assert await told(owner) == [("v-1", "m-1", "low_efficiency", None)]
    last = await evaluated(owner)
    assert last is not None
    return last


async def end_session(owner: Owner) -> None:
    """Correct the session: it ends earlier."""
    await owner.execute(
        "update charging_session set during = tstzrange(lower(during), upper(during) - interval '7 minutes')"
    )


async def drop_session(owner: Owner) -> None:
    """Take the session away."""
    await owner.execute("delete from charging_session")


async def add_session(owner: Owner) -> None:
    """Tell of another session."""
    await owner.execute(
        "insert into charging_session (vehicle_id, meter_id, during) "
        "values ('v-2', 'm-2', tstzrange(now(), null))"
    )


async def late_reading(owner: Owner) -> None:
    """Store a reading of a finished hour and roll it up; it belongs to nobody's session."""
    await owner.execute("insert into meter_reading values ('m-9', now() - interval '5 hours', 1, 230)")
    await owner.execute("call refresh_rollups()")


async def new_threshold(owner: Owner) -> None:
    """Change the rule."""
    await settings(owner, efficiency_threshold=0.8)


async def next_hour(owner: Owner) -> None:
    """Let the rollups move on, here back by an hour, which is as good."""
    await owner.execute("update rollup_progress set refreshed_until = refreshed_until - interval '1 hour'")


@pytest.mark.parametrize(
    "change", [end_session, drop_session, add_session, late_reading, new_threshold, next_hour]
)
async def test_judged_anew_after_a_change(
    owner: Owner, judged: datetime, change: Callable[[Owner], Awaitable[None]]
) -> None:
    """Nothing is judged twice, and everything after a change; once, then there is peace again."""
    assert await evaluated(owner) == judged
    await change(owner)
    again = await evaluated(owner)
    assert again is not None
    assert again > judged
    assert await evaluated(owner) == again


async def test_what_changes_nothing(owner: Owner, judged: datetime) -> None:
    """A reading of the open hour, a session written as it was, and a refresh without work judge nothing."""
    await owner.execute("insert into meter_reading values ('m-1', now(), 1, 230)")
    await owner.execute("update charging_session set during = during")
    await owner.execute("call refresh_rollups()")
    assert await evaluated(owner) == judged


async def test_a_change_that_is_committed_after_later_ones(
    owner: Owner, judged: datetime, postgres: Postgres, database: str
) -> None:
    """A session corrected before, but committed after an evaluation that saw a newer one, is not missed."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database)) as slow:
        slow.execute("delete from charging_session where vehicle_id = 'v-1'")
        await add_session(owner)
        between = await evaluated(owner)
        assert between is not None
        assert between > judged
        assert await told(owner) == [("v-1", "m-1", "low_efficiency", None)]
        slow.commit()
    await evaluated(owner)
    assert await told(owner) == [("v-1", "m-1", "low_efficiency", "withdrawn")]
