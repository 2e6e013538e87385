"""docs/bi.md: each statement in it runs, as the role and in the way that the tool would run it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jinja2
import psycopg
import pytest

from service import migrations
from tests.sql.test_bi import DOCUMENT, refused
from tests.support import bi_fleet
from tests.support.bi_fleet import END, START, by_vehicle, of_fleet
from tests.support.reckoning import DAY, HOUR, Book
from tests.support.servers import PASSWORD, Postgres

FROM, TO = "2025-06-01T00:00:00Z", "2025-06-04T00:00:00Z"


class Example(NamedTuple):
    """A statement of the page: the section that it stands in, the comment above it, its text."""

    section: str
    title: str
    text: str


def examples() -> list[Example]:
    """Read the statements of the page in their order."""
    result, section = [], ""
    for part in re.split(r"^(## .+)$", DOCUMENT.read_text(), flags=re.MULTILINE):
        if part.startswith("## "):
            section = part.removeprefix("## ")
        for title, text in re.findall(r"^```sql\n-- ([^\n]+)\n(.+?)^```", part, re.MULTILINE | re.DOTALL):
            result.append(Example(section, title, text))
    return result


def statement(section: str, title: str) -> str:
    """Give the one statement under a title."""
    [found] = [example.text for example in examples() if example[:2] == (section, title)]
    return found


def for_grafana(text: str, *, timescaledb: bool) -> str:
    """Put in what Grafana puts in for its macros, by its rules, and for the variable."""

    def group(found: re.Match[str]) -> str:
        column, seconds = found[1], int(found[2]) * 3600
        if timescaledb:
            return f"time_bucket('{seconds}.000s',{column}) AS \"time\""
        return f'floor(extract(epoch from {column})/{seconds})*{seconds} AS "time"'

    text = re.sub(r"\$__timeGroupAlias\((\w+), '(\d+)h'\)", group, text)
    text = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN '{FROM}' AND '{TO}'", text)
    text = re.sub(r"\$__time\((\w+)\)", r'\1 AS "time"', text)
    text = text.replace("$__timeFrom()", f"'{FROM}'").replace("$__timeTo()", f"'{TO}'")
    return text.replace("$vehicle", "car-1")


def for_metabase(text: str, *, optional: bool) -> str:
    """Put in what Metabase puts in for variables, with or without the clause in [[ ]]."""
    [view] = re.findall(r"bi\.(\w+)", text)
    vehicle = "car-6" if view == "alerts" else "car-1"  # the one that has an alert
    text = re.sub(r"\[\[(.+?)\]\]", r"\1" if optional else "", text)
    span = (
        f'"bi"."{view}"."day" >= timestamp with time zone \'{FROM}\' '
        f'and "bi"."{view}"."day" < timestamp with time zone \'{TO}\''
    )
    wanted = f'"bi"."{view}"."vehicle_id" IN (\'{vehicle}\')'
    text = text.replace("{{span}}", span).replace("{{vehicle}}", wanted)
    return text.replace("{{from}}", "date '2025-06-01'").replace("{{to}}", "date '2025-06-04'")


class Span(NamedTuple):
    """What Superset's get_time_filter gives for PostgreSQL."""

    from_expr: str = "TO_TIMESTAMP('2025-06-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')"
    to_expr: str = "TO_TIMESTAMP('2025-06-04 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')"


def for_superset(text: str) -> str:
    """Put in what Superset puts in, and ask for the whole of it as a chart asks a virtual dataset."""
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - it makes SQL, not HTML
    rendered = environment.from_string(text).render(get_time_filter=lambda *_, **__: Span())
    return f"select * from ({rendered}) as virtual_table limit 1000"  # noqa: S608 - our own text


def as_run(example: Example) -> list[str]:
    """Give the statements that a tool makes of an example."""
    match example.section:
        case "Grafana":
            return [for_grafana(example.text, timescaledb=switch) for switch in (True, False)]
        case "Metabase":
            return [for_metabase(example.text, optional=switch) for switch in (True, False)]
        case "Superset":
            return [for_superset(example.text)]
        case _:
            return [example.text]


class Served(NamedTuple):
    """A connection of the role, set up as the page says, and the book of what it must see."""

    bi: psycopg.Connection[Any]
    book: Book


@pytest.fixture
def served(postgres: Postgres, database: str) -> Iterator[Served]:
    """Give a database set up by the page's own statements, with the small fleet in it."""
    book = bi_fleet.build(postgres, database)
    with postgres.admin() as connection:
        settings = statement("The role", "Session settings, by whoever may change roles")
        for line in settings.replace("database fleetwatt", f"database {database}").splitlines():
            connection.execute(line.encode())
        password = statement("The role", "Password, by whoever may change roles")
        connection.execute(password.replace("...", PASSWORD).encode())
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        yield Served(connection, book)


def rows_of(served: Served, text: str) -> list[tuple[Any, ...]]:
    """Run a statement without letting psycopg look for parameters in it."""
    return served.bi.execute(text.rstrip().rstrip(";").encode()).fetchall()


def test_each_example_gives_rows(served: Served) -> None:
    """Every query of the page gives rows, whatever the tool makes of it; the macros left nothing behind."""
    run = 0
    for example in examples():
        if re.search(", by (whoever may|a superuser|the owner)", example.title):
            continue
        for text in as_run(example):
            assert not re.search(r"\$_|\{\{|\[\[|\{%", text), text
            assert rows_of(served, text), text
            run += 1
    assert run >= 25
    assert {"Local days", "Grafana", "Metabase", "Superset"} <= {example.section for example in examples()}


@pytest.mark.parametrize("tool", ["Grafana", "Metabase"])
def test_energy_by_day(served: Served, tool: str) -> None:
    """Billed, delivered and lost by day are the readings' sums."""
    days = [START, START + DAY, START + 2 * DAY, END]
    expected = [row[:3] for _, row in sorted(of_fleet(served.book, days).items())]
    [example] = [e for e in examples() if e.section == tool and e.title.endswith("lost by day")]
    for text in as_run(example):
        given = [row for row in rows_of(served, text) if row[0] < END]
        assert [row[0] for row in given] == days[:-1]
        for row, figures in zip(given, expected, strict=True):
            assert row[1:] == pytest.approx(figures)


@pytest.mark.parametrize("tool", ["Grafana", "Metabase", "Superset"])
def test_worst_chargers(served: Served, tool: str) -> None:
    """The failing charger comes first, with its ratio."""
    pairs = served.book.pairs((START, END))
    ratios = {meter: row[2] / row[0] for (_, meter), row in pairs.items() if row[0] >= 0.5}
    for text in as_run(Example(tool, "", statement(tool, "Worst chargers"))):
        given = [(row[0], row[-1]) for row in rows_of(served, text)]
        assert [meter for meter, _ in given] == sorted(ratios, key=lambda meter: ratios[meter])
        assert dict(given) == pytest.approx(ratios)
        assert given[0] == ("m-5", 0.0)  # its vehicle never reports


def test_efficiency_over_time(served: Served) -> None:
    """Steps of six hours hold the ratio of sums, with and without TimescaleDB's function."""
    edges = [START + number * 6 * HOUR for number in range(13)]
    expected = [row[3] for _, row in sorted(of_fleet(served.book, edges).items())]
    example = statement("Grafana", "Efficiency of the fleet over time, in steps of the panel's choice")
    for switch in (True, False):
        rows = rows_of(served, for_grafana(example, timescaledb=switch))
        start = rows[0][0]
        assert (start if switch else datetime.fromtimestamp(float(start), UTC)) == START
        assert [row[1] for row in rows[:12]] == pytest.approx(expected)


def test_one_vehicle_and_the_whole_span(served: Served) -> None:
    """Hours of a chosen vehicle, and the stat panel's ratio over the dashboard's span."""
    text = for_grafana(statement("Grafana", "One vehicle, hour by hour"), timescaledb=True)
    edges = [START + number * HOUR for number in range(73)]
    expected = {key[1]: row for key, row in by_vehicle(served.book, edges).items() if key[0] == "car-1"}
    given = {row[0]: row[1:] for row in rows_of(served, text) if row[0] < END}
    assert given.keys() == expected.keys()
    for hour, row in given.items():
        assert row == pytest.approx(expected[hour][:2]), hour
    title = "The fleet's efficiency over the dashboard's span, exact to its ends"
    [row] = rows_of(served, for_grafana(statement("Grafana", title), timescaledb=True))
    [figures] = of_fleet(served.book, [START, END]).values()
    assert row == pytest.approx((figures[3], figures[0], figures[2]))


def test_local_days(served: Served) -> None:
    """Days of Zurich from hours, and of Kolkata from the function, are the readings' sums."""
    for title, first in (
        ("Energy by local day, from hours", datetime(2025, 5, 31, 22, tzinfo=UTC)),
        ("Energy by local day of any zone", datetime(2025, 5, 31, 18, 30, tzinfo=UTC)),
    ):
        edges = [first + number * DAY for number in range(5)]
        given = rows_of(served, statement("Local days", title))
        expected = [row[:2] for _, row in sorted(of_fleet(served.book, edges).items())]
        for row, figures in zip(given, expected, strict=False):
            assert row[1:3] == pytest.approx(figures)
        assert [row[0] for row in given][:4] == edges[:4]


def test_what_every_role_may_do(served: Served) -> None:
    """What the page says that PostgreSQL lets the role do, it does; it is not more than the page says."""
    for statement in ("select pg_terminate_backend(0x7fffffff)", "select pg_try_advisory_xact_lock(1)"):
        served.bi.execute(statement.encode())  # in a read-only session, too
    served.bi.execute("set default_transaction_read_only = off")
    for statement in (
        f"alter role fleetwatt_bi password '{PASSWORD}'",
        "alter role fleetwatt_bi set work_mem = '5MB'",
        "alter role fleetwatt_bi reset work_mem",
        "notify fleetwatt_alerts",
        "select pg_notify('fleetwatt_alerts', '')",
        "select pg_logical_emit_message(false, 'a', 'b')",
        "select lo_unlink(lo_create(0))",
    ):
        served.bi.execute(statement.encode())
    for statement in (
        "alter role fleetwatt_bi createrole",
        "alter role fleetwatt_service set work_mem = '5MB'",
        "select _timescaledb_functions.stop_background_workers()",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres' limit 1",
    ):
        assert refused(served.bi, statement), statement


def test_a_login_role_for_one_tool(served: Served, postgres: Postgres, database: str) -> None:
    """It reads what fleetwatt_bi reads, starts its sessions alike, and cannot touch that role."""
    section = "What the role can and cannot do"
    text = statement(section, "A login role for one tool, by whoever may change roles")
    with postgres.admin(database) as admin:
        admin.execute(
            text.replace("...", PASSWORD).replace("database fleetwatt", f"database {database}").encode()
        )
        try:
            with psycopg.connect(postgres.url("grafana", database), autocommit=True) as tool:
                settings = ("default_transaction_read_only", "statement_timeout", "search_path", "jit")
                for query in (
                    *(f"show {setting}" for setting in settings),
                    "select * from fleet_daily",
                    "select * from charger_efficiency_hourly where meter_id = 'm-1'",
                    "select * from fleet_series('2025-06-01Z', '2025-06-04Z', 'day')",
                ):
                    rows = tool.execute(query.encode()).fetchall()
                    assert rows == served.bi.execute(query.encode()).fetchall()
                    assert rows
                tool.execute("set default_transaction_read_only = off")
                for forbidden in (
                    "set role fleetwatt_bi",
                    "alter role fleetwatt_bi password 'mine'",
                    "alter role fleetwatt_bi reset all",
                    "select * from public.meter_reading",
                ):
                    assert refused(tool, forbidden), forbidden
        finally:
            admin.execute("drop role grafana")


def test_temporary_tables_taken_back(served: Served, postgres: Postgres, database: str) -> None:
    """After the page's statement the role has none, and the owner has."""
    title = "No temporary tables, by the owner of the database or a superuser"
    text = statement("What the role can and cannot do", title)
    with postgres.admin() as connection:
        connection.execute(f"grant temporary on database {database} to public".encode())
        connection.execute(text.replace("database fleetwatt", f"database {database}").encode())
    served.bi.execute("set default_transaction_read_only = off")
    assert refused(served.bi, "create temp table t (a int)")
    with psycopg.connect(postgres.url("fleetwatt_owner", database)) as owner:
        owner.execute("create temp table t (a int)")


def test_what_a_superuser_may_take_away(served: Served, postgres: Postgres, database: str) -> None:
    """After the page's last statement the role has no large objects, locks and messages; all else works."""
    text = statement(
        "What the role can and cannot do",
        "Large objects, advisory locks and messages only for fleetwatt, by a superuser",
    )
    with postgres.admin(database) as connection:
        connection.execute(text.encode())
    served.bi.execute("set default_transaction_read_only = off")
    for call in ("lo_create(0)", "lo_from_bytea(0, '')", "pg_try_advisory_lock(1718383735, 1)",
                 "pg_advisory_xact_lock_shared(1)", "lo_creat(-1)",
                 "pg_logical_emit_message(false, 'a', 'b')"):  # fmt: skip
        assert refused(served.bi, f"select {call}"), call
    assert rows_of(served, "select * from bi.fleet_daily")
    migrations.migrate(postgres.url("fleetwatt_owner", database))
    bi_fleet.refresh(postgres, database)
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as connection:
        connection.execute("insert into meter_reading values ('m', '2025-06-01Z', 1, 230)")
