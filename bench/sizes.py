"""How much each benchmark does: the one place that says so."""

from __future__ import annotations

from typing import Final, NamedTuple


class Sizes(NamedTuple):
    """The sizes of a run; those of the short form unless told otherwise."""

    # The fleet that writes: so many meters, and as many vehicles.
    devices: int = 10_000
    # Of that fleet, in one go: what is sent in batches, at most.
    minutes: int = 10
    # Baseline and ours take turns so often.
    rounds: int = 3
    # Readings in one go of what is slower than batches.
    messages: int = 60_000
    requests: int = 20_000
    transactions: int = 4_000
    latency_s: float = 10.0
    latency_rates: tuple[int, ...] = (333,)
    # What is read while others write: a history, and how much is written meanwhile.
    history_vehicles: int = 1_000
    history_hours: int = 24
    reads_s: float = 25.0
    reads_rate: int = 10_000
    reads_least: int = 1_000
    # Live streams that are open beside ingest.
    stream_clients: int = 1_000
    # Readings that are stored before ingest is measured, and the vehicles that they are of.
    rows_few: int = 1_000_000
    rows_many: int = 4_000_000
    rows_vehicles: int = 1_000
    # Questions about each length of history.
    asked: int = 500
    compressed_vehicles: int = 1_000
    compressed_days: int = 2


SHORT: Final = Sizes()
FULL: Final = Sizes(
    minutes=20,
    rounds=5,
    messages=200_000,
    requests=40_000,
    transactions=15_000,
    latency_s=20.0,
    latency_rates=(100, 333, 1_000, 3_000, 10_000),
    history_vehicles=10_000,
    reads_s=60.0,
    rows_many=100_000_000,
)
# For trying that it works; the figures mean nothing.
TINY: Final = Sizes(
    devices=20,
    minutes=1,
    rounds=1,
    messages=40,
    requests=40,
    transactions=40,
    latency_s=1.0,
    latency_rates=(50,),
    history_vehicles=20,
    reads_s=1.0,
    reads_rate=100,
    reads_least=10,
    stream_clients=20,
    rows_few=3_000,
    rows_many=6_000,
    rows_vehicles=20,
    asked=10,
    compressed_vehicles=5,
    compressed_days=1,
)
