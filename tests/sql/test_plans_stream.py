"""What the live stream asks: given ids by their keys, all by one look at the table, and no index for it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from service.sql import query
from tests.support.servers import Postgres

KINDS = ["meter", "vehicle"]


@pytest.fixture
def owner_of_states(postgres: Postgres, database: str) -> Any:
    """Give a connection to a database with 5,000 meters and vehicles."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        for table, columns in (("meter_state", "0.1, 230"), ("vehicle_state", "50, 0.1, 20")):
            connection.execute(
                f"insert into {table} select 'd-' || d, now(), {columns} "  # noqa: S608 - our own names
                "from generate_series(1, 5000) as d"
            )
        connection.execute("vacuum analyze meter_state, vehicle_state")
        yield connection


def explained(connection: psycopg.Connection[Any], name: str, **parameters: Any) -> str:
    """Give the executed plan of a query as text."""
    text = query(name).rstrip(";").encode()
    rows = connection.execute(
        b"explain (analyze, costs off, timing off, summary off) " + text, parameters
    ).fetchall()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_given_ids_are_found_by_key(owner_of_states: psycopg.Connection[Any], kind: str) -> None:
    """However many devices there are, it looks at those that are asked for."""
    ids = ["d-7", "d-9", "d-none"]
    executed = explained(owner_of_states, f"changed_{kind}_states_of", ids=ids, stream_position="3")
    assert f"{kind}_state_pkey" in executed
    assert "Seq Scan" not in executed


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_changed_is_sent(owner_of_states: psycopg.Connection[Any], kind: str) -> None:
    """Of all rows the server reads, those that an earlier look has seen stay where they are."""
    [(position,)] = owner_of_states.execute(query("stream_position")).fetchall()
    owner_of_states.execute(
        f"update {kind}_state set updated_at = now() where {kind}_id = 'd-7'"  # noqa: S608 - our own names
    )
    executed = explained(owner_of_states, f"changed_{kind}_states", stream_position=position)
    assert "Rows Removed by Filter: 4999" in executed
    rows = owner_of_states.execute(query(f"changed_{kind}_states"), {"stream_position": position}).fetchall()
    assert [row[0] for row in rows] == ["d-7"]
    for ids in (["d-7"], ["d-8"]):
        rows = owner_of_states.execute(
            query(f"changed_{kind}_states_of"), {"ids": ids, "stream_position": position}
        ).fetchall()
        assert [row[0] for row in rows] == [each for each in ids if each == "d-7"]


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_states_touch_no_index(owner_of_states: psycopg.Connection[Any], kind: str) -> None:
    """An index for streams would end that, and cost each commit more than it saves a look."""
    indexes = owner_of_states.execute(
        "select indexname from pg_indexes where tablename = %s", (f"{kind}_state",)
    ).fetchall()
    assert indexes == [(f"{kind}_state_pkey",)]
