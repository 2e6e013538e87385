"""Plans of the list of sessions: a page costs a page, however many sessions there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest

from service.sql import query
from tests.support.servers import Postgres

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
PAGE: Final = 50
ALL: Final = dict.fromkeys(
    ("vehicle_id", "meter_id", "window_from", "window_to", "is_open", "after_start", "after_id")
)


@pytest.fixture
def stored(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to a database with 20,000 sessions, 500 at a time."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        connection.execute(
            "insert into charging_session (session_id, vehicle_id, meter_id, during) "
            "select 's-' || n, 'v-' || n %% 500, 'm-' || n %% 500, tstzrange(t, t + interval '2 hours') "
            "from generate_series(1, 20000) as n, "
            "lateral (select %s + n / 500 * interval '3 hours' as t) as s",
            (START,),
        )
        connection.execute("analyze charging_session")
        yield connection


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize("hours", [None, 60], ids=["first", "later"])
def test_a_page_begins_in_the_index_where_the_last_one_ended(
    stored: psycopg.Connection[Any], hours: int | None, generic: bool
) -> None:
    """The newest sessions, and those after some session far down, cost the rows of their page and no sort."""
    after: dict[str, Any] = {}
    if hours is not None:
        after = {"after_start": START + timedelta(hours=hours), "after_id": "s-10200"}
    # The plan of a prepared query knows nothing of its parameters.
    stored.execute(f"set plan_cache_mode = force_{'generic' if generic else 'custom'}_plan".encode())
    text = query("list_sessions").rstrip(";")
    cursor = stored.execute(
        b"explain (analyze, costs off, timing off, summary off, buffers) " + text.encode(),
        {**ALL, **after, "page_size": PAGE},
        prepare=True,
    )
    executed = "\n".join(row[0] for row in cursor)
    assert "Index Scan using charging_session_newest" in executed, executed
    assert "Sort" not in executed, executed
    assert "Rows Removed by Filter" not in executed, executed
    assert "Index Cond: (ROW(lower(during), session_id) < ROW(" in executed, executed
    assert f"actual rows={PAGE}" in executed, executed
    pages = re.search(r"Buffers: shared hit=(\d+)", executed)
    assert pages is not None
    assert int(pages[1]) < 3 * PAGE, executed
