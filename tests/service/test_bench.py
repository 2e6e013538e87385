"""Each benchmark at a tiny size: it runs, checks itself, and says so when what it measured is not there."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import engine, plots, report
from bench.engine import Database, Engine
from bench.results import FailedError, Result, Target, spread
from bench.sizes import TINY


@pytest.fixture(scope="module")
def servers() -> Iterator[Engine]:
    """Give the servers that benchmarks run against."""
    with engine.running("apache") as running:
        yield running


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose a stored reading before each count."""

    def rows(self: Database, *since: Any) -> int:
        self.owner.execute("delete from meter_reading where ctid = (select min(ctid) from meter_reading)")
        return counted(self, *since)

    counted = Database.rows
    monkeypatch.setattr(Database, "rows", rows)


# The same with other numbers.
@pytest.mark.parametrize(
    "name", sorted(command.SCENARIOS.keys() - {"http-10", "http-100", "http-5000", "http-mixed"})
)
def test_each_scenario_runs_and_finds_what_it_sent(servers: Engine, name: str) -> None:
    """What it says of itself is there: figures, and targets with what was found."""
    result = command.SCENARIOS[name].run(servers, TINY)
    assert result.scenario == name
    assert result.what
    assert all(value > 0 for figure, value in result.figures.items() if figure.endswith("per_s"))
    assert result.figures.keys() >= {target["figure"] for target in result.targets}
    assert result.targets or name == "baselines" or "skipped" in result.figures


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("name", ["http-1000", "mqtt-1"])
def test_a_reading_that_is_missing_is_no_success(servers: Engine, name: str) -> None:
    """A benchmark counts what is stored."""
    with pytest.raises(FailedError, match="store"):
        command.SCENARIOS[name].run(servers, TINY)


@pytest.mark.usefixtures("forgetful")
def test_a_run_that_lost_readings_ends_with_status_1_and_says_which(
    servers: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are measured all the same, and all of it is in the file."""
    monkeypatch.setattr(engine, "running", lambda _: contextlib.nullcontext(servers))
    file = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--tiny", "--json", str(file), "baselines", "http-100"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    document = json.loads(file.read_text())
    assert [result["scenario"] for result in document["results"]] == ["baselines", "http-100"]
    assert all(
        "to store" in result["failed"] or "to be stored" in result["failed"] for result in document["results"]
    )
    assert document["about"].keys() >= {"commit", "postgresql", "timescaledb", "cores", "date", "seed"}
    assert "FAILED" in capsys.readouterr().out


def test_a_run_says_what_it_found(
    servers: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal, and as Markdown from the file."""
    monkeypatch.setattr(engine, "running", lambda _: contextlib.nullcontext(servers))
    file = tmp_path / "results.json"
    monkeypatch.setattr(
        sys, "argv", ["bench", "--tiny", "--json", str(file), "--size", "devices=30", "baselines"]
    )
    command.main()
    told = capsys.readouterr().out
    assert "baselines: copy per s" in told
    assert "changed tiny form" in told
    assert json.loads(file.read_text())["about"]["sizes"]["devices"] == 30
    monkeypatch.setattr(sys, "argv", ["report", str(file)])
    report.main()
    assert "| baselines: copy per s |" in capsys.readouterr().out


def test_tables_show_ranges_and_targets() -> None:
    """The median with the least and the greatest, and what was missed in capitals."""
    result = Result("http-1000", "HTTP", {"peak_mb": 91.0})
    result.figures |= spread("per_s", [90_000, 110_000, 100_000], 0) | spread("of_copy", [0.5])
    result.figures |= {f"cpu_{part}_us": 2.5 for part in ("service", "postgres", "broker", "load")}
    result.judge((Target("of_copy", 0.55), Target("peak_mb", 200, at_least=False)))
    ingest, targets = report.sheets({"results": [asdict(result)]})
    ours = ("http-1000", "100,000 (90,000-110,000)", "0.5", "", "", "", "2.5 2.5 2.5 2.5", "91")
    assert ingest.rows == [ours]
    assert targets.rows == [
        ("http-1000: of copy", "at least 0.55", "0.5", "NO"),
        ("http-1000: peak mb", "under 200", "91", "yes"),
    ]


def test_curves_are_drawn_where_there_is_more_than_one_point(tmp_path: Path) -> None:
    """Throughput by batch size and latency by rate; of a history of one length there is no curve."""

    def result(scenario: str, figures: dict[str, float], points: list[dict[str, float]]) -> dict[str, Any]:
        return {"scenario": scenario, "failed": "", "figures": figures, "points": points}

    rates = {"per_s": 50.0, "per_s_min": 40.0, "per_s_max": 60.0, "copy_per_s": 99.0, "one_by_one_per_s": 3.0}
    batches = [result(f"http-{batch}", {"batch": batch, **rates}, []) for batch in (1, 1000)]
    latency = [{"rate": rate, "latency_p50_ms": 2.0, "latency_p99_ms": 9.0} for rate in (100, 333)]
    history = [{"rows": 2e6, "performance_p50_ms": 2.0, "performance_p99_ms": 9.0}]
    others = [result("latency-mqtt", {}, latency), result("large", {}, history)]
    drawn = plots.draw({"results": [*batches, *others]}, tmp_path)
    assert [file.name for file in drawn] == ["throughput.png", "latency.png"]
    assert all(file.stat().st_size < 60_000 for file in drawn)
