"""How long questions take over HTTP while 10,000 readings a second are being written."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import urlencode

from bench import history
from bench.engine import Database, Engine, Load
from bench.results import Result, Scenario, Target, check, percentiles
from bench.shot import Block
from bench.sizes import FULL, Sizes

_BATCH: Final = 100
_PAGE: Final = 1_000
# Of a turn of questions, how many ask for the energy of a vehicle and for its state.
_PERFORMANCE: Final = 50
_CURRENT: Final = 5
# Some minutes are written in less: they would be late for an hour that has just ended.
_SETTLE_S: Final = 3600
Times = dict[str, list[float]]


class Client:
    """One kept connection to the service."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str, times: list[float], **query: object) -> Any:
        """Ask, note the time until the whole answer is there, and give it decoded."""
        began = time.perf_counter()
        self._connection.request("GET", f"{path}?{urlencode(query)}")
        answer = self._connection.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - began)
        check(answer.status == 200, f"{path} was answered {answer.status}: {body[:300]!r}")
        return json.loads(body)


def _load_history(database: Database, vehicles: int, hours: int) -> None:
    """Store a history of minutes that ends with the last whole hour, rolled up."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    database.owner.execute("set timezone = 'UTC'")
    database.settle_after(_SETTLE_S)
    history.load(database.owner, vehicles, end - timedelta(hours=hours), hours)
    database.owner.execute("vacuum analyze")
    database.owner.execute("call refresh_rollups()")
    database.owner.execute("vacuum analyze")


def measure(engine: Engine, sizes: Sizes) -> Result:
    """Ask in turns for as long as the load writes; check what was stored, and that the load kept its pace."""
    result = Result("under-load", "answers over HTTP while readings are being written")
    times: Times = {"performance": [], "states_page": [], "current": [], "fleet": []}
    with engine.database() as database:
        _load_history(database, sizes.history_vehicles, sizes.history_hours)
        with engine.serving(database, ROLLUP_SETTLE_S=_SETTLE_S) as (port, _):
            before = database.rows()
            with _writing(engine, sizes, port) as written, Client(port) as client:
                chosen = random.Random(7)
                # All devices have written, and have a state.
                time.sleep(min(2.0, sizes.reads_s / 5))
                while not written.done():
                    _ask(client, sizes, chosen, times)
            told = written.result()
        stored = database.rows() - before
    check(stored == told["readings"], f"{told['readings']:,} readings were to be stored, {stored:,} are")
    check(len(times["performance"]) >= sizes.reads_least, f"only {len(times['performance'])} calls were made")
    result.figures["history_rows"] = before
    result.figures["written_per_s"] = round(told["readings"] / told["seconds"])
    result.figures |= percentiles("write_request", told["latencies"])
    for name, found in times.items():
        result.figures |= {f"{name}_calls": len(found), **percentiles(name, found)}
    targets = [
        Target("performance_p99_ms", 25, at_least=False),
        Target("states_page_p99_ms", 100, at_least=False),
        Target("written_per_s", 0.95 * sizes.reads_rate),
    ]
    # The fleet's answer is to be fast over all its vehicles.
    if sizes.history_vehicles >= FULL.history_vehicles:
        targets.append(Target("fleet_p99_ms", 150, at_least=False))
    result.judge(targets)
    return result


@contextmanager
def _writing(engine: Engine, sizes: Sizes, port: int) -> Iterator[Future[dict[str, Any]]]:
    """Write live readings, of the minutes until now, at a rate."""
    count = round(sizes.reads_rate * sizes.reads_s)
    minutes = -(-count // (2 * sizes.devices))
    first = round((datetime.now(UTC) - engine.begin).total_seconds() / 60) - minutes
    how = {
        "over": "http",
        "port": port,
        "batch": _BATCH,
        "connections": 16,
        "rate": sizes.reads_rate / _BATCH,
    }
    with (
        ThreadPoolExecutor(1) as pool,
        Load({**Block(first, minutes, sizes.devices, count).spec(engine), **how}) as load,
    ):
        engine.settle()
        load.start()
        yield pool.submit(load.result)


def _ask(client: Client, sizes: Sizes, chosen: random.Random, times: Times) -> None:
    def vehicle() -> str:
        return f"VH-{chosen.randint(1, sizes.history_vehicles)}"

    # Neither end of the window lies on the hour: raw rows are read at both.
    now = datetime.now(UTC)
    window = {"from": (now - timedelta(hours=24)).isoformat(), "to": now.isoformat()}
    for _ in range(_PERFORMANCE):
        answer = client.get(f"/v1/analytics/performance/{vehicle()}", times["performance"], **window)
        check(answer["readingsCount"]["vehicle"] > 0, f"an empty answer: {answer}")
    for _ in range(_CURRENT):
        client.get(f"/v1/ingest/vehicle/{vehicle()}/current", times["current"])
    client.get("/v1/analytics/fleet", times["fleet"])
    _walk(client, max(sizes.history_vehicles, sizes.devices), times)


def _walk(client: Client, vehicles: int, times: Times) -> None:
    seen, after = 0, None
    while True:
        query: dict[str, object] = {"limit": _PAGE} | ({"after": after} if after else {})
        page = client.get("/v1/analytics/vehicles/states", times["states_page"], **query)
        seen += len(page["vehicles"])
        after = page["next"]
        if not after:
            break
    check(seen <= vehicles, f"{seen} vehicles were told of, there are {vehicles}")


SCENARIOS: Final = (
    Scenario(
        "under-load", "the 24-hour performance call and others while 10,000 readings/s are written", measure
    ),
)
