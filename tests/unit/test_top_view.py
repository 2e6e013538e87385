"""The pictures of `top` and of the demo: what they say of figures, whatever the figures are."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from rich.console import Console, RenderableType

from service.cli import figures
from service.cli.demo_view import DemoView
from service.cli.options import service_url
from service.cli.top_view import TopView
from service.cli.watch import Figures, Sight
from service.embedded.instance import Running
from service.settings import Settings
from service.simulator.progress import Progress

NOW: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
ENERGY: Final = {
    "totalAcConsumedKwh": 1250.0,
    "totalDcDeliveredKwh": 1000.0,
    "energyLossKwh": 250.0,
    "efficiencyRatio": 0.8,
    "belowThreshold": True,
}
NO_ENERGY: Final = dict.fromkeys(ENERGY, 0.0) | {"efficiencyRatio": None, "belowThreshold": False}


def seen(energy: dict[str, Any] = ENERGY, **changes: Any) -> Figures:
    """Give figures of a service with 3 vehicles."""
    rollup = {
        "refreshedUntil": "2026-01-31T11:00:00Z",
        "refreshedAt": "2026-01-31T11:59:30Z",
        "staleHours": 2,
        "failures": 0,
    }
    stats = {
        "readings": {kind: {"accepted": 5000, "duplicates": 3} for kind in ("meter", "vehicle")},
        "ingest": {"sources": {"mqtt": {"readingsPerSecond": 333.3}}},
        "deadLetters": {"total": 4, "byCode": {"conflict": 1, "out_of_range": 3}},
        "rollups": {"meter": rollup, "vehicle": rollup},
        "storage": {"meter_reading": {"bytes": 26_000_000}},
    }
    overview = {
        "vehicles": {"known": 3, "reporting": 2, "charging": 1},
        "meters": {"known": 3, "reporting": 3},
        "power": {"acKw": 11.0},
        "today": energy,
        "threshold": 0.85,
        "alerts": {"open": 7},
        "ingest": {"readingsPerSecond": 333.3, "lagMeanSeconds": 1.25},
        "newestReadingAt": "2026-01-31T11:59:57Z",
    }
    alert = {"vehicleId": "v-3", "meterId": "m-3", "kind": "low_efficiency", "ratioWorst": 0.7}
    return Figures(
        ready={"version": "1.2.3", "breaker": "closed"},
        overview=overview,
        stats=stats,
        buffer={"readings": 12, "maxReadings": 200_000},
        alerts=[{**alert, "openedAt": "2026-01-31T10:00:00Z"}],
        worst=[{"vehicleId": f"v-{number}", **energy} for number in range(9)],
    )._replace(**changes)


def sight(figures_seen: Figures | None, **changes: Any) -> Sight:
    """Give a sight of now."""
    return Sight("http://[::1]:8080", NOW, figures=figures_seen, seen_at=NOW)._replace(**changes)


def drawn(picture: RenderableType, width: int = 130) -> str:
    """Draw a picture for a pipe."""
    output = io.StringIO()
    Console(file=output, width=width, highlight=False).print(picture)
    return output.getvalue()


def test_all_figures_are_shown() -> None:
    """Flow, energy, engine, the worst and the alerts; no more of the worst than there is room for."""
    shown = drawn(TopView().render(sight(seen()), 3, "a hint"))
    for said in (
        *(
            "http://[::1]:8080  fleetwatt 1.2.3",
            "ready",
            "a hint",
            "333.3 /s",
            "1.2 s",
            "3.0 s ago",
            "10,000",
        ),
        *("2 of 3 report", "11.0 kW", "1,250.0 kWh", "80.0 %", "closed", "12 of 200,000", "31 Jan 11:00 UTC"),
        *("30 s ago", "out_of_range", "26 MB", "v-2", "below 85 %", "70.0 %", "2 h", "the newest of 7"),
    ):
        assert said in shown, said
    assert "v-3 " in shown.partition("open alerts, the newest")[2]
    assert "v-4" not in shown


def test_new_dead_letters_are_told() -> None:
    """What has come since the first look stands beside the total."""
    view = TopView()
    assert "+" not in drawn(view.render(sight(seen()), 3))
    more = seen()
    more.stats["deadLetters"]["total"] = 6
    assert "+2" in drawn(view.render(sight(more), 3))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_any_width(width: int) -> None:
    """No line is wider than the terminal, and nothing fails on a narrow one."""
    shown = drawn(TopView().render(sight(seen()), 3), width)
    assert max(len(line) for line in shown.splitlines()) <= width


def test_an_engine_without_data() -> None:
    """Nothing stored yet is a picture, too."""
    empty = seen(NO_ENERGY, alerts=[], worst=[])
    empty.overview["newestReadingAt"] = None
    empty.overview["ingest"]["lagMeanSeconds"] = None
    for rollup in empty.stats["rollups"].values():
        rollup["refreshedUntil"] = rollup["refreshedAt"] = None
    shown = drawn(TopView().render(sight(empty), 3))
    assert "open alerts, the newest" not in shown
    assert TopView().line(sight(empty)).startswith("12:00:00 UTC ready, 333/s, lag -, buffer 12")


def test_trouble_is_told() -> None:
    """What is wrong, since when, and of when the figures are; and never what a terminal would obey."""
    since = NOW - timedelta(seconds=14)
    bad = sight(seen(), trouble="no answer: [red]x", since=since, seen_at=since - timedelta(seconds=2))
    shown = drawn(TopView().render(bad, 3))
    assert "not ready since 11:59:46 UTC (14 s): no answer: [red]x" in shown
    assert "what follows is of 11:59:44 UTC" in shown
    assert TopView().line(bad) == "12:00:00 UTC not ready since 11:59:46 UTC (14 s): no answer: [red]x"
    never = drawn(TopView().render(sight(None, trouble="no answer", since=NOW, seen_at=None), 3))
    assert "no answer" in never
    strange = seen()
    strange.stats["deadLetters"]["byCode"] = {"\x1b[2J": 4}
    assert "\x1b" not in drawn(TopView().render(sight(strange), 3))


def test_the_demo_shows_the_same_parts() -> None:
    """Its picture has the energy and the worst vehicles as `top` has them."""
    running = Running(
        pid=1,
        started=1,
        ready=True,
        data_dir="",
        http="http://127.0.0.1:1",
        mqtt="mqtt://127.0.0.1:2",
        database="",
        service_database="",
        bi_database="",
        http_port=1,
        mqtt_port=2,
        db_port=3,
        processes=[],
    )
    fleet = {**ENERGY, "charging": 5, "threshold": 0.85, "vehicles": seen().worst}
    stats = {"ingest": {"sources": {"mqtt": {"lagMeanSeconds": 0.9}}}}
    change = {"stored": 100, "duplicates": 2, "dead_letters": 0}
    view = DemoView(running)
    shown = drawn(view.render(101, change, Progress(), stats, fleet))
    for said in ("http://127.0.0.1:1/api", "readings sent", "101", "0.9 s", "1,250.0 kWh", "80.0 %", "v-8"):
        assert said in shown, said
    assert "stored 100" in view.line(101, change, Progress(), fleet)


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (None, "-"),
        (-0.1, "0.0 s"),
        (9.94, "9.9 s"),
        (59.0, "59 s"),
        (150.0, "2 min"),
        (8000.0, "2 h"),
        (2e5, "2 d"),
    ],
)
def test_durations(duration: float | None, said: str) -> None:
    """Each is written in the unit that suits it."""
    assert figures.seconds(duration) == said


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (Settings(http_port=8080), "http://127.0.0.1:8080"),
        (Settings(http_host="0.0.0.0", http_port=81), "http://127.0.0.1:81"),  # noqa: S104 - asked, not served
        (Settings(http_host="::1", http_port=81), "http://[::1]:81"),
        (
            Settings(http_host="api.example", http_tls_cert_file="c", http_tls_key_file="k"),
            "https://api.example",
        ),
    ],
)
def test_the_address_of_the_settings(settings: Settings, address: str) -> None:
    """Without --url and a running engine, the service that the settings describe is asked."""
    assert service_url(settings).startswith(address)
