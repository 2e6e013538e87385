"""What is counted for each request and message: plain numbers, which Prometheus reads when it asks.

A counter of the client library takes half a microsecond with its lock, and finding it by its labels as much
again; all that is counted here for a request takes less. Only the event loop adds. /metrics of a worker reads
from a thread of its own, so it copies what may grow meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Final, Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.readings import Kind

_REQUEST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# The first is for clocks that are ahead of ours.
_LAG_S: Final = (0, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STATUS: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
OTHER: Final = "other"
# Where the framework notes, in the scope of a request, the template of the route that it went to.
ROUTE: Final = "path_template"


class Coded(Protocol):
    """A refusal: all that is counted of it is its code."""

    @property
    def code(self) -> str:
        """One of a few words of ours."""


class Source:
    """What came from one side (http, mqtt, replay, import): readings, from their arrival to the buffer."""

    __slots__ = ("accepted", "received", "rejected")

    def __init__(self) -> None:
        self.received = 0
        self.accepted = 0
        self.rejected: Counter[str] = Counter()

    def decoded(self, readings: int, rejections: Collection[Coded]) -> None:
        """Count a payload: its good readings, and its refused ones by code."""
        self.received += readings
        if rejections:
            self.received += len(rejections)
            self.rejected.update([rejection.code for rejection in rejections])


class Spread:
    """A histogram; `bounds` are the upper ends of its buckets, in seconds."""

    __slots__ = ("_place", "bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self._place = partial(bisect_left, bounds)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[self._place(value)] += 1
        self.total += value

    def add_all(self, values: Collection[float]) -> None:
        """Count many values; what is below zero adds nothing to their sum, which must never shrink."""
        # Sorting and looking for each bound takes a sixth of the time of looking for each value.
        ordered = sorted(values)
        below = 0
        for place, bound in enumerate(self.bounds):
            up_to = bisect_right(ordered, bound)
            self.counts[place] += up_to - below
            below = up_to
        self.counts[-1] += len(ordered) - below
        self.total += sum(ordered[bisect_right(ordered, 0.0) :])

    def buckets(self) -> list[tuple[str, float]]:
        """Give the buckets as Prometheus has them: each holds those before it."""
        counts = list(self.counts)
        ends = [*map(floatToGoString, self.bounds), "+Inf"]
        return [(end, sum(counts[: place + 1])) for place, end in enumerate(ends)]


class Http:
    """Requests: how many are being answered, and how long those took that were."""

    __slots__ = ("answered", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.answered: dict[tuple[str, str, int], Spread] = {}

    def done(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request by the template of its route; a status of 0 says that it got no answer."""
        spread = self.answered.get((route, method, status // 100))
        if spread is None:
            key = (route, known_method(method), status // 100)
            spread = self.answered.setdefault(key, Spread(_REQUEST_S))
        spread.add(seconds)


class Mqtt:
    """A worker's connection to the broker; nothing is told of it in a process that has none."""

    __slots__ = ("connected", "connections", "messages", "receive_maximum", "unacknowledged")

    def __init__(self) -> None:
        self.connected = False
        self.connections = 0
        self.messages = 0
        self.receive_maximum = 0
        self.unacknowledged: Callable[[], int] = int


HTTP: Final = Http()
MQTT: Final = Mqtt()
LAG: Final[dict[Kind, Spread]] = {"meter": Spread(_LAG_S), "vehicle": Spread(_LAG_S)}
_sources: Final[dict[str, Source]] = {}


def known_method(method: str) -> str:
    """Give one of a few: a client may call a method whatever it likes."""
    return method if method in _METHODS else OTHER


def source(name: str) -> Source:
    """Give the counts of a side that readings come from: the first part of a pipeline's name."""
    return _sources.setdefault(name.partition("/")[0], Source())


def register() -> None:
    """Have all of it told to Prometheus with everything else."""
    REGISTRY.register(_Told())


class _Told(Collector):
    """Makes of the numbers what the client library writes out."""

    def collect(self) -> Iterator[Metric]:
        """Give all metrics, as they stand."""
        yield from _of_sources()
        yield from _of_requests()
        yield _histogram(
            "fleetwatt_ingest_lag_seconds",
            "How late the newest reading of each device was when it was stored, in the service's time",
            ["kind"],
            (([kind], spread) for kind, spread in LAG.items()),
        )
        if MQTT.receive_maximum:
            yield from _of_mqtt()


def _of_sources() -> Iterator[Metric]:
    received = CounterMetricFamily(
        "fleetwatt_received_readings", "Readings that came in, good or bad", labels=["source"]
    )
    accepted = CounterMetricFamily(
        "fleetwatt_accepted_readings", "Good readings that were handed to the writers", labels=["source"]
    )
    rejected = CounterMetricFamily(
        "fleetwatt_rejected_readings", "Readings refused before storage", labels=["source", "code"]
    )
    for name, counts in sorted(_sources.items()):
        received.add_metric([name], counts.received)
        accepted.add_metric([name], counts.accepted)
        for code, number in sorted(counts.rejected.copy().items()):
            rejected.add_metric([name, code], number)
    yield from (received, accepted, rejected)


def _of_requests() -> Iterator[Metric]:
    yield GaugeMetricFamily("fleetwatt_http_requests_in_flight", "Requests being answered", HTTP.in_flight)
    yield _histogram(
        "fleetwatt_http_request_seconds",
        "Time from a request's headers to the end of its answer",
        ["route", "method", "status"],
        (
            ([route, method, _STATUS[status] if status < len(_STATUS) else OTHER], spread)
            for (route, method, status), spread in list(HTTP.answered.items())
        ),
    )


def _of_mqtt() -> Iterator[Metric]:
    yield GaugeMetricFamily("fleetwatt_mqtt_connected", "1 while the broker delivers to us", MQTT.connected)
    yield CounterMetricFamily(
        "fleetwatt_mqtt_connections",
        "Connections that the broker accepted, the first one too",
        MQTT.connections,
    )
    yield CounterMetricFamily("fleetwatt_mqtt_messages", "Messages that came, of any topic", MQTT.messages)
    yield GaugeMetricFamily(
        "fleetwatt_mqtt_unacknowledged_messages",
        "Messages that came on this connection and are not acknowledged yet",
        MQTT.unacknowledged(),
    )
    yield GaugeMetricFamily(
        "fleetwatt_mqtt_receive_maximum",
        "Unacknowledged messages at which the broker sends us no more",
        MQTT.receive_maximum,
    )


def _histogram(
    name: str, help_line: str, labels: list[str], spreads: Iterable[tuple[list[str], Spread]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help_line, labels=labels)
    for values, spread in spreads:
        family.add_metric(values, spread.buckets(), spread.total)
    return family
