"""Plans of the queries about alerts: by index, however many alerts and events there have ever been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from service.sql import query
from tests.support.servers import Postgres

NOTHING = dict.fromkeys(
    ("is_open", "vehicle_id", "meter_id", "alert_kind", "window_from", "window_to", "after_alert")
)


@pytest.fixture
def history(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to a database with years of closed alerts, a few open ones and a few open events."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        connection.execute(
            "insert into efficiency_alert (vehicle_id, meter_id, kind, opened_at, closed_at, close_reason, "
            "window_from, window_to, kwh_ac, kwh_dc, meter_coverage, vehicle_coverage, threshold, "
            "evaluated_until) "
            "select 'v-' || n % 5000, 'm-' || n % 5000, 'low_efficiency', "
            "now() - (30000 - n) * interval '1 hour', "
            "case when n < 29990 then now() - (29999 - n) * interval '1 hour' end, "
            "case when n < 29990 then 'recovered' end, now(), now(), 10, 7, 1, 1, 0.85, now() "
            "from generate_series(1, 30000) as n"
        )
        connection.execute(
            "update alert_event set mqtt_delivered_at = now(), webhook_state = 'delivered' "
            "where event_id < 29990"
        )
        connection.execute("vacuum analyze")
        yield connection


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("list_alerts", NOTHING | {"page_size": 100}),
        ("list_alerts", NOTHING | {"page_size": 100, "after_alert": 15_000}),
        ("list_alerts", NOTHING | {"page_size": 100, "vehicle_id": "v-77"}),
        ("list_alerts", NOTHING | {"page_size": 100, "meter_id": "m-77", "is_open": False}),
        ("list_alerts", NOTHING | {"page_size": 100, "is_open": True}),
        ("count_open_alerts", {}),
        ("count_undelivered_events", {}),
        ("vehicles_to_announce", {"page_size": 500}),
        ("open_alerts_of", {"vehicle_ids": ["v-4999", "v-1"]}),
        ("events_to_post", {"page_size": 100}),
        ("give_up_old_events", {"max_age_hours": 168}),
    ],
)
def test_by_index(history: psycopg.Connection[Any], name: str, parameters: dict[str, Any]) -> None:
    """Each finds its rows by an index, never by reading the whole table."""
    text = b"explain (analyze, costs off, timing off, summary off) " + query(name).rstrip(";").encode()
    executed = "\n".join(row[0] for row in history.execute(text, parameters))
    assert "Index" in executed, executed
    assert "Seq Scan" not in executed, executed
