"""Grafana's dashboards as files, and its way from a panel's query to a statement.

What happens to a query is done here as Grafana does it, in two steps: the browser puts in variables, then the
PostgreSQL data source its macros (pkg/tsdb/grafana-postgresql-datasource/macros.go in Grafana's source). Of
these there are `$__time(column)`, `$__timeFilter(column)`, `$__timeFrom()` and `$__timeTo()` here: our
dashboards use no other, and a test fails where one does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from service import paths

FOLDER: Final = Path(paths.__file__).parents[1] / "deploy/grafana"
FILES: Final = sorted((FOLDER / "dashboards").glob("*.json"))
# As deploy/grafana/provisioning names them; a test holds the two together.
BI: Final = {"type": "grafana-postgresql-datasource", "uid": "fleetwatt-bi"}
PROMETHEUS: Final = {"type": "prometheus", "uid": "fleetwatt-prometheus"}
_MACRO: Final = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")
# What the browser rounds a step to, in milliseconds (roundInterval of @grafana/data): below this, it is that.
_ROUNDED: Final = {5_400_000: 3_600_000, 9_000_000: 7_200_000, 16_200_000: 10_800_000, 32_400_000: 21_600_000}
_HALF_DAY, _DAY, _WEEK = 43_200_000, 86_400_000, 604_800_000


class Span(NamedTuple):
    """A dashboard's time range."""

    begin: datetime
    end: datetime

    def interval_ms(self, points: int) -> int:
        """Give the step that Grafana asks for, by how many points a panel may have; never below an hour."""
        exact = (self.end - self.begin).total_seconds() * 1000 / points
        for most, rounded in _ROUNDED.items():
            if exact < most:
                return rounded
        return _HALF_DAY if exact < _DAY else _DAY if exact < _WEEK else _WEEK


class Query(NamedTuple):
    """A query of a dashboard: where it stands, how rows are read, its text, how many points it may have."""

    dashboard: str
    place: str
    format: str
    text: str
    points: int


def dashboard(name: str) -> dict[str, Any]:
    """Give what a file says."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"dashboards/{name}.json").read_text())
    return loaded


def names() -> list[str]:
    """Give the dashboards, each by the name of its file."""
    return [file.stem for file in FILES]


def panels(name: str) -> list[dict[str, Any]]:
    """Give the panels of a dashboard, without its rows."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def queries(name: str, source: Mapping[str, str]) -> Iterator[Query]:
    """Give all that a dashboard asks of a data source: its variables, its notes, its panels."""
    said = dashboard(name)
    for variable in said["templating"]["list"]:
        if variable["type"] == "query" and variable["datasource"] == source:
            yield Query(name, f"variable {variable['name']}", "variable", variable["query"], 1000)
    for note in said["annotations"]["list"]:
        if note["datasource"] == source:
            yield Query(name, f"notes: {note['name']}", "annotation", note["target"]["rawSql"], 1000)
    for panel in panels(name):
        for target in panel["targets"]:
            if target["datasource"] == source:
                text = target.get("rawSql") or target["expr"]
                place = f"{panel['title']} {target['refId']}"
                yield Query(name, place, target.get("format", ""), text, panel.get("maxDataPoints", 1000))


def defaults(name: str) -> dict[str, str]:
    """Give the values that a dashboard's variables begin with; queries have none."""
    variables = dashboard(name)["templating"]["list"]
    return {one["name"]: one["current"]["value"] for one in variables if one["type"] != "query"}


def statement(query: Query, span: Span, values: Mapping[str, str]) -> str:
    """Give what Grafana sends to PostgreSQL."""
    return _macros(
        _variables(query.text, {"__interval_ms": str(span.interval_ms(query.points)), **values}), span
    )


def _variables(text: str, values: Mapping[str, str]) -> str:
    def put(found: re.Match[str]) -> str:
        name, form = found[1] or found[3], found[2]
        if name not in values:
            return found[0]
        if form == "sqlstring":
            return "'" + values[name].replace("'", "''").replace('"', '\\"') + "'"
        assert form is None, f"no rule for the form {form}"
        return values[name]

    return _VARIABLE.sub(put, text)


def _macros(text: str, span: Span) -> str:
    begin, end = (f"'{moment.astimezone(UTC).isoformat().replace('+00:00', 'Z')}'" for moment in span)

    def put(found: re.Match[str]) -> str:
        match found[1], found[2].strip():
            case "__time", column:
                return f'{column} AS "time"'
            case "__timeFilter", column:
                return f"{column} BETWEEN {begin} AND {end}"
            case "__timeFrom", "":
                return begin
            case "__timeTo", "":
                return end
            case name, _:
                raise AssertionError(f"no rule for the macro {name}")

    return _MACRO.sub(put, text)
