"""Grafana's dashboards, asked: each query runs as the role of BI tools, and tells what the readings say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support import bi_fleet, grafana
from tests.support.bi_fleet import END, START, by_vehicle, of_fleet
from tests.support.grafana import BI, Query, Span
from tests.support.reckoning import DAY, HOUR, Book
from tests.support.servers import Postgres

QUERIES: Final = [query for name in grafana.names() for query in grafana.queries(name, BI)]
# What a device that is failing now, and one of last year, show; a choice of everything else.
CHOSEN: Final = {
    "then": {"vehicle": "car-1", "meter": "m-1"},
    "now": {"vehicle": "car-6", "meter": "m-6"},
    "by day": {
        "vehicle": "car-2",
        "meter": "m-2",
        "width": "day",
        "zone": "Asia/Kolkata",
        "find": "CAR-2",
        "threshold": "0.9",
    },
    "long": {"vehicle": "it's", "meter": "it's", "least": "0", "find": "'"},
}


class Role(NamedTuple):
    """A connection of the role fleetwatt_bi, and the book of what it must see."""

    connection: psycopg.Connection[dict[str, Any]]
    book: Book

    def ask(self, query: Query, span: Span, **values: str) -> list[dict[str, Any]]:
        """Ask as Grafana does: the text as it stands, without parameters."""
        text = grafana.statement(query, span, grafana.defaults(query.dashboard) | values)
        return self.connection.execute(text.encode()).fetchall()

    def panel(self, dashboard: str, title: str, span: Span, **values: str) -> list[dict[str, Any]]:
        """Ask what one panel asks."""
        [query] = [query for query in QUERIES if (query.dashboard, query.place) == (dashboard, f"{title} A")]
        return self.ask(query, span, **values)


@pytest.fixture
def role(postgres: Postgres, database: str) -> Iterator[Role]:
    """Give the role on a database with the small fleet in it."""
    book = bi_fleet.build(postgres, database)
    with psycopg.connect(
        postgres.url("fleetwatt_bi", database), autocommit=True, row_factory=dict_row
    ) as connection:
        yield Role(connection, book)


def spans() -> dict[str, Span]:
    """Give the time ranges by what is chosen in them."""
    now = datetime.now(UTC)
    return {
        "then": Span(START + timedelta(hours=1.5), END),
        "now": Span(now - 2 * DAY, now),
        "by day": Span(now - 7 * DAY, now),
        "long": Span(now - 900 * DAY, now),
    }


def _well_formed(query: Query, rows: list[dict[str, Any]]) -> None:
    """Check that Grafana can read the rows as the panel says."""
    columns = list(rows[0])
    assert len(columns) == len(set(columns))
    match query.format:
        case "variable":
            assert len(columns) == 1
        case "annotation":
            assert columns == ["time", "timeend", "text"]
            assert all(isinstance(row["time"], datetime) and row["timeend"] >= row["time"] for row in rows)
        case "time_series":
            times = [row["time"] for row in rows]
            assert columns[0] == "time"
            assert all(isinstance(time, datetime) for time in times)
            assert times == sorted(set(times)), "ascending, and one row a time"
            for column in columns[1:]:
                assert {type(row[column]) for row in rows} <= {float, int, type(None)}, column
        case form:
            assert form == "table"


def test_every_query_gives_rows(role: Role) -> None:
    """Whatever is chosen it runs, and for some choice there are rows of the form that its panel needs."""
    for query in QUERIES:
        found = 0
        for choice, span in spans().items():
            if rows := role.ask(query, span, **CHOSEN[choice]):
                found += 1
                _well_formed(query, rows)
        assert found, query
    assert len(QUERIES) >= 30


def _shown(role: Role, name: str, panel: dict[str, Any]) -> list[dict[str, Any]]:
    """Give rows of all that a panel asks, for choices that have some."""
    asked = [query for query in QUERIES if query.dashboard == name and query.place[:-2] == panel["title"]]
    return [
        row
        for query in asked
        for choice, span in spans().items()
        if choice != "long"
        for row in role.ask(query, span, **CHOSEN[choice])
    ]


def test_columns_and_what_panels_say_of_them(role: Role) -> None:
    """What a panel says of a column is about one that is there; each number that is no count has a unit."""
    checked = 0
    for name in grafana.names():
        for panel in grafana.panels(name):
            if panel["datasource"] != BI or not (rows := _shown(role, name, panel)):
                continue
            with_unit: set[str] = set()
            for override in panel["fieldConfig"]["overrides"]:
                matcher = override["matcher"]["options"]
                pattern = matcher.strip("/") if matcher.startswith("/") else re.escape(matcher)
                columns = {column for row in rows for column in row if re.fullmatch(pattern, column)}
                assert columns, (name, panel["title"], matcher)
                if any(one["id"] == "unit" for one in override["properties"]):
                    with_unit |= columns
            numbers = {column for row in rows for column, value in row.items() if isinstance(value, float)}
            assert "unit" in panel["fieldConfig"]["defaults"] or numbers <= with_unit, (name, panel["title"])
            checked += 1
    assert checked >= 20


def test_no_query_leaves_the_schema(role: Role) -> None:
    """Each relation is named with its schema, which is bi; the role could read nothing else of ours."""
    for query in QUERIES:
        named = set(re.findall(r"\b(?:from|join|lateral)\s+([\w.]+)", query.text)) - {
            "generate_series",
            "lateral",
        }
        assert named, query
        assert all(name.startswith("bi.") for name in named), query
        assert "public." not in query.text
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        role.connection.execute("select * from public.meter_reading")


def test_figures_of_the_fleet(role: Role) -> None:
    """The head, the bars, the list of vehicles and the hours of the day say what the readings add up to."""
    span = spans()["then"]
    [figures] = of_fleet(role.book, [*span]).values()
    vehicles = {key[0]: row for key, row in by_vehicle(role.book, [*span]).items()}
    [head] = role.panel("fleet", "Energy in the time range", span)
    assert head == pytest.approx(
        {
            "billed": figures[0],
            "delivered": figures[1],
            "lost": figures[2],
            "efficiency": figures[3],
            "vehicles billed": sum(1 for row in vehicles.values() if row[0] > 0),
            "vehicles below threshold": sum(
                1 for row in vehicles.values() if row[3] is not None and row[3] < 0.85
            ),
        }
    )
    listed = {row["vehicle"]: row for row in role.panel("fleet", "Vehicles", span)}
    assert {name: (row["billed"], row["delivered"]) for name, row in listed.items()} == {
        name: pytest.approx(row[:2]) for name, row in vehicles.items()
    }
    lost = [row["lost"] for row in listed.values()]
    assert lost == sorted(lost, reverse=True)
    assert {name: row["state"] for name, row in listed.items()} == {
        "car-1": "more than billed",
        "car-2": "good",
        # It reports in and out of sessions: some of its sessions are missing.
        "car-3": "more than billed",
        "car-4": "below threshold",
        "car-5": "not billed",
    }
    assert [row["vehicle"] for row in role.panel("fleet", "Vehicles", span, find="R-3")] == ["car-3"]
    edges = [START + HOUR + number * HOUR for number in range(72)]
    hours = role.panel("fleet", "Energy by step", span)
    expected = of_fleet(role.book, edges)
    assert {row["time"]: row["billed"] for row in hours} == {
        key[1]: pytest.approx(row[0]) for key, row in expected.items()
    }


def test_figures_of_a_vehicle(role: Role) -> None:
    """The head of the page, and each session between its start and its end."""
    span = spans()["then"]
    [expected] = [row for key, row in by_vehicle(role.book, [*span]).items() if key[0] == "car-1"]
    [head] = role.panel("vehicle", "${vehicle} in the time range", span, vehicle="car-1")
    assert (head["billed"], head["delivered"], head["lost"], head["efficiency"]) == pytest.approx(
        expected[:4]
    )
    sessions = role.panel("vehicle", "Sessions", span, vehicle="car-1")
    book = {session.session_id: session for session in role.book.sessions if session.vehicle == "car-1"}
    # The first of them ends before the time range begins.
    assert len(sessions) == len([one for one in book.values() if one.end and one.end > span.begin]) > 12
    for row in sessions:
        one = book[row["session"]]
        assert one.end
        [figures] = [r for key, r in by_vehicle(role.book, [one.start, one.end]).items() if key[0] == "car-1"]
        assert (row["billed"], row["delivered"]) == pytest.approx(figures[:2]), row["session"]
        assert (row["started"], row["ended"], row["charger"]) == (one.start, one.end, one.meter)
    drew = role.panel("vehicle", "Where it drew", span, vehicle="car-1")
    assert [row["charger"] for row in drew[:2]] == ["m-1", None]


def test_figures_of_chargers(role: Role) -> None:
    """The worst come first, each with its ratio; what a vehicle drew from two at once is neither's."""
    span = spans()["then"]
    pairs = role.book.pairs(span)
    ratios = {meter: row[2] / row[0] for (_, meter), row in pairs.items() if row[0] >= 1}
    ranked = role.panel("chargers", "Chargers by efficiency", span)
    assert [row["charger"] for row in ranked] == sorted(ratios, key=lambda meter: ratios[meter])
    assert {row["charger"]: row["efficiency"] for row in ranked} == pytest.approx(ratios)
    [head] = role.panel("chargers", "Chargers in the time range", span)
    assert (head["chargers ranked"], head["worst"]) == (len(ratios), min(ratios.values()))
    assert head["below threshold"] == sum(1 for ratio in ratios.values() if ratio < 0.85)
    spread = role.panel("chargers", "How they spread", span)
    assert sum(row["chargers"] for row in spread) == len(ratios)
    by_hour = role.panel("chargers", "Efficiency of ${meter}", span, meter="m-3")
    by_day = role.panel("chargers", "Efficiency of ${meter}", spans()["long"], meter="m-3")
    assert {row["time"].hour for row in by_day} == {0}
    assert len(by_hour) > len(by_day) >= 3


def test_who_is_silent(role: Role) -> None:
    """Devices by the age of their newest reading; each in one column."""
    span = spans()["now"]
    rows = {row["devices"]: row for row in role.panel("ingest", "Who is silent", span)}
    counts = {devices: [n for n in row.values() if isinstance(n, int)] for devices, row in rows.items()}
    # The pair that is failing now has told of the last whole hour: that may be a moment ago.
    assert {devices: (sum(n), n[0] >= 1, n[-1]) for devices, n in counts.items()} == {
        "meters": (6, True, 4),
        "vehicles": (5, True, 3),
    }
    silent = role.panel("ingest", "Silent since the time range began", span)
    assert {row["device"] for row in silent} <= {"m-6", "car-6"}
    ever = role.panel("ingest", "Silent since the time range began", spans()["long"])
    assert {"m-1", "car-1", "car-5"} <= {row["device"] for row in ever}
    streams = role.panel("ingest", "Rollups", span)
    assert [row["stream"] for row in streams] == ["meter", "vehicle"]
    assert all(row["stale hours"] == 0 for row in streams)
