"""The head of the fleet's page in one answer: devices, power, energy of the day, alerts, ingest."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from service.analytics.energy import balance
from service.analytics.shared import Shared
from service.questions import Question, Questions, Rows, Source
from service.settings import Settings
from service.sql import query
from service.web.answers import rfc3339, rounded

_S_PER_H: Final = 3600
# The day's energy reads the raw rows of the hour that goes on, the rest of the answer those of five minutes.
_NOW_KEPT_S: Final = 2.0
_TODAY_KEPT_S: Final = 5.0
# Time zones whose days are kept.
_ZONES_KEPT: Final = 16

Answer = dict[str, Any]


class Overviews:
    """Overviews by time zone, each part of them worked out once for all who ask at once."""

    def __init__(self, questions: Questions, settings: Settings) -> None:
        self._questions = questions
        self._threshold = settings.efficiency_threshold
        self._now: Shared[Answer] = Shared(1, _NOW_KEPT_S)
        self._today: Shared[Answer] = Shared(_ZONES_KEPT, _TODAY_KEPT_S)

    async def get(self, zone: str, *, fresh: bool) -> Answer:
        """Give one that is some seconds old; a fresh one is asked of the primary now.

        Raises what Source.ask raises.
        """
        source = self._questions.primary if fresh else self._questions
        now, today = await asyncio.gather(
            self._now.get(None, partial(_now, source), anew=fresh),
            self._today.get(zone, partial(self._of_today, source, zone), anew=fresh),
        )
        return {**now, "today": today, "threshold": self._threshold}

    async def _of_today(self, source: Source, zone: str) -> Answer:
        [[row]] = await source.ask(Question(query("overview_today"), {"zone": zone}))
        told = row["vehicle_readings"] > 0
        return {
            "periodStart": rfc3339(row["period_start"]),
            "periodEnd": rfc3339(row["period_end"]),
            **balance(row["kwh_ac"], row["kwh_dc"], self._threshold, told=told),
        }


async def _now(source: Source) -> Answer:
    [devices], [power], alerts, ingest = await source.ask(
        Question(query("overview_devices")),
        Question(query("overview_power")),
        Question(query("count_open_alerts")),
        Question(query("ingest_recently")),
    )
    return {
        "asOf": rfc3339(devices["as_of"]),
        "vehicles": {
            "known": devices["vehicles"],
            "reporting": devices["vehicles_reporting"],
            "charging": devices["vehicles_charging"],
        },
        "meters": {"known": devices["meters"], "reporting": devices["meters_reporting"]},
        "power": {
            "acKw": rounded(power["kwh_ac"] * _S_PER_H / power["seconds"]),
            "dcKw": rounded(power["kwh_dc"] * _S_PER_H / power["seconds"]),
            "seconds": power["seconds"],
        },
        "alerts": {"open": sum(row["alerts"] for row in alerts)},
        "ingest": _ingest(ingest),
        "newestReadingAt": rfc3339(devices["newest_reading"]),
    }


def _ingest(sources: Rows) -> dict[str, float | None]:
    lags = sum(row["lag_s_count"] for row in sources)
    return {
        "readingsPerSecond": rounded(sum(row["accepted_per_s"] for row in sources)),
        "lagMeanSeconds": rounded(sum(row["lag_s_sum"] for row in sources) / lags) if lags else None,
    }
