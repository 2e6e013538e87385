"""Telemetry over MQTT 5: a persistent session, shared subscriptions, acknowledged after the commit.

Reconnecting is done here, with pauses that grow and with jitter; a refusal that no retry can mend ends the
process. What is in handling is bounded in bytes: over the bound nothing more is read from the socket, and no
new connection is made, which would deliver once more what is in handling already.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from gmqtt.mqtt.handler import MQTTConnectError

from service import lifecycle, log, tallies
from service.broker import BrokerAddress, BrokerRefusedError, explain_tls, words
from service.errors import SettingsError
from service.ingest.decode import beside, decode, is_large
from service.ingest.mqtt_link import Link
from service.ingest.outcome import Decoded, Rejection
from service.ingest.pipeline import Pipeline
from service.readings import TimeRule
from service.settings import Settings

if TYPE_CHECKING:
    from service.otel import Traces

TOPIC_FILTER: Final = "telemetry/+/+"
_FORMER_SHARE: Final = "fleetwatt"
_TOPIC: Final = re.compile(r"telemetry/(?P<kind>meter|vehicle)/(?P<id>[A-Za-z0-9._:\-]{1,64})")

_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 10.0
# A connection that lasted this long was a good one: the next pause is short again.
_STEADY_S: Final = 5.0
# Two workers with one client id throw each other out: slowly, so that it costs little until someone looks.
_TAKEN_OVER_PAUSE_S: Final = 60.0
_READINGS: Final = tallies.source("mqtt")
_BROKER: Final = tallies.MQTT

# A session of which nothing has come for so long holds nothing.
_QUIET_S: Final = 3.0

# Handles a message of another kind, given its topic and payload; what it raises leaves it with the broker.
Handler = Callable[[str, bytes], Coroutine[Any, Any, None]]


class Consumer:
    """Takes telemetry from the broker and hands it to the pipeline until it is told to stop.

    `handlers` are for messages of other kinds: the first level of their topics, which have two, to what
    takes them. Once a handler returns, what became of the message is committed. `traces` are of messages.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        handlers: Mapping[str, Handler] | None = None,
        traces: Traces | None = None,
    ) -> None:
        if not settings.mqtt_url:
            raise SettingsError("no broker: set FLEETWATT_MQTT_URL, or start one with `fleetwatt up`")
        self._settings = settings
        self._pipeline = pipeline
        self._traces = traces
        self._address = BrokerAddress.of(settings)
        self._rule = TimeRule.of(settings)
        # Reckoned once for all messages that are read at once.
        self._window = self._rule.window()
        self._window_at = 0.0
        # Set while the broker delivers to us.
        self.connected = asyncio.Event()
        self._handlers = dict(handlers or {})
        self._link: Link | None = None
        self._accepted = False
        self._draining = False
        # Messages that wait for more than their commit: the event loop alone would drop them.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._handling = 0
        # Bytes of topics and payloads that are not committed yet, from whatever connection.
        self.handling_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._room.set()
        self._log = log.get("mqtt")
        _BROKER.receive_maximum = settings.mqtt_receive_maximum
        _BROKER.unacknowledged = lambda: self._link.unacknowledged if self._link is not None else 0

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop` is set; then finish what was taken and leave the session there.

        Raises BrokerRefusedError when the broker refuses the credentials or the subscription for good, or
        when TLS with it fails before it has worked once in this process. Later such a failure is most likely
        a certificate that is being renewed: it is logged and tried again, for nothing is lost meanwhile.
        """
        pause_s = _PAUSE_S
        while not stop.is_set():
            await _first(stop, self._room.wait())
            if stop.is_set():
                return
            began = asyncio.get_running_loop().time()
            self._link = link = Link(self._settings, self._address, self._take, self._traces)
            try:
                await _first(stop, self._open(link))
                if not stop.is_set() and not link.lost.is_set():
                    await self._serve(link, stop)
            except (OSError, TimeoutError, MQTTConnectError, SettingsError) as error:
                self._judge(error, pause_s)
            else:
                if asyncio.get_running_loop().time() - began >= _STEADY_S:
                    pause_s = _PAUSE_S
                self._note_loss(link, stop)
            finally:
                await link.close()
            pause_for_s = _TAKEN_OVER_PAUSE_S if link.taken_over else pause_s
            await _first(stop, asyncio.sleep(pause_for_s * random.uniform(0.5, 1.0)))
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    async def leave(self, stop: asyncio.Event) -> None:
        """Store what the broker holds for our client id, then end the session: nothing more is dealt to it.

        Raises ConnectionError if it cannot be told that all of it was stored; then the session is as it was.
        """
        self._link = link = Link(self._settings, self._address, self._take, self._traces)
        done = False
        try:
            await _first(stop, self._open(link))
            link.unsubscribe([_shared(one, share) for one in self._filters for share in self._shares])
            await _first(stop, link.lost.wait(), self._quiet())
            done = not (stop.is_set() or link.lost.is_set())
        except (OSError, TimeoutError, MQTTConnectError) as error:
            raise ConnectionError(words(error)) from None
        finally:
            await link.close(end_session=done)
        if not done:
            raise ConnectionError("the connection was lost")
        self._log.info("session_ended", client_id=self._settings.mqtt_client_id)

    @property
    def _filters(self) -> list[str]:
        return [TOPIC_FILTER, *(f"{level}/+" for level in self._handlers)]

    @property
    def _shares(self) -> set[str]:
        """Give the names under which our session may have subscribed, of settings past and present."""
        return {self._settings.mqtt_share, _FORMER_SHARE, ""}

    async def _quiet(self) -> None:
        """Return once nothing comes any more and all that came is stored."""
        seen = -1
        while self._handling or seen != _BROKER.messages:
            seen = _BROKER.messages
            await asyncio.sleep(_QUIET_S)

    async def _open(self, link: Link) -> None:
        await link.open()
        self._accepted = True
        _BROKER.connections += 1
        client_id = self._settings.mqtt_client_id
        self._log.info("broker_connected", broker=str(self._address), client_id=client_id)

    async def _serve(self, link: Link, stop: asyncio.Event) -> None:
        """Subscribe, and take what comes until the connection is lost or until `stop`, then drain."""
        share = self._settings.mqtt_share
        filters = self._filters
        subscribing = link.subscribe(
            [_shared(one, share) for one in filters],
            # The session may hold the other kind of subscription from before a change of settings.
            [_shared(one, "" if share else _FORMER_SHARE) for one in filters],
        )
        await _first(stop, link.lost.wait(), subscribing)
        if not stop.is_set() and not link.lost.is_set():
            self.connected.set()
            _BROKER.connected = True
            lifecycle.notify_ready()
            await _first(stop, link.lost.wait())
            self.connected.clear()
            _BROKER.connected = False
        if not link.lost.is_set():
            await self._drain(link)

    def _judge(self, error: Exception, pause_s: float) -> None:
        """Log why there is no connection; end it all if TLS fails that has never worked."""
        tls = explain_tls(self._address, error)
        if (tls or isinstance(error, SettingsError)) and not self._accepted:
            raise BrokerRefusedError(tls or str(error)) from None
        self._log.warning(
            "broker_away", broker=str(self._address), error=tls or words(error), pause_s=round(pause_s, 1)
        )

    def _note_loss(self, link: Link, stop: asyncio.Event) -> None:
        if link.taken_over:
            self._log.error(
                "session_taken_over",
                client_id=self._settings.mqtt_client_id,
                error="another client has connected with our client id: give each worker a "
                "FLEETWATT_MQTT_CLIENT_ID of its own",
                pause_s=_TAKEN_OVER_PAUSE_S,
            )
        elif not stop.is_set():
            self._log.warning("broker_lost", broker=str(self._address), reason=link.reason)

    def _take(self, topic: str, payload: bytes) -> asyncio.Future[Any] | None:
        """Handle one message; give what is done when all that is in it has been committed."""
        _BROKER.messages += 1
        if self._draining:
            return None
        size = len(topic) + len(payload)
        self._hold(size)
        if (at := asyncio.get_running_loop().time()) != self._window_at:
            self._window, self._window_at = self._rule.window(), at
        try:
            future = self._start(topic, payload)
        except Exception as error:  # noqa: BLE001 - a defect of ours: whoever waits for the future tells of it
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
        future.add_done_callback(lambda _: self._release(size))
        return future

    def _start(self, topic: str, payload: bytes) -> asyncio.Future[Any]:
        handler = self._handlers.get(topic.partition("/")[0])
        if handler is not None:
            return self._task(handler(topic, payload))
        if is_large(payload):
            return self._task(self._take_large(topic, payload))
        decoded = self._decode(topic, payload)
        _READINGS.decoded(len(decoded.readings), decoded.rejections)
        origin = _origin(topic)
        return self._pipeline.submit_now(decoded, origin) or self._task(
            self._pipeline.submit(decoded, origin)
        )

    async def _take_large(self, topic: str, payload: bytes) -> None:
        decoded = await beside(payload, lambda: self._decode(topic, payload))
        _READINGS.decoded(len(decoded.readings), decoded.rejections)
        await self._pipeline.submit(decoded, _origin(topic))

    def _task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _hold(self, size: int) -> None:
        """Count a message in; stop reading once there is too much."""
        self._handling += 1
        self.handling_bytes += size
        self._idle.clear()
        if self.handling_bytes > self._settings.buffer_max_bytes:
            self._room.clear()
            if self._link is not None:
                self._link.pause()

    def _release(self, size: int) -> None:
        """Count a message out; read again once there is room."""
        self._handling -= 1
        self.handling_bytes -= size
        if not self._handling:
            self._idle.set()
        if self.handling_bytes <= self._settings.buffer_max_bytes // 2 and not self._room.is_set():
            self._room.set()
            if self._link is not None and not self._draining:
                self._link.resume()

    def _decode(self, topic: str, payload: bytes) -> Decoded:
        match = _TOPIC.fullmatch(topic)
        if match is None:
            rejection = Rejection(
                index=0,
                code="unknown_topic",
                message="the topic must be telemetry/meter/{meterId} or telemetry/vehicle/{vehicleId}, "
                "with an id of 1 to 64 characters of A-Z a-z 0-9 . _ : -",
                field="topic",
                raw=payload,
            )
            return Decoded(body=payload, readings=[], indices=[], rejections=[rejection], whole=True)
        kind: Any = match["kind"]
        return decode(
            payload,
            self._window,
            kind=kind,
            topic_id=match["id"],
            max_readings=self._settings.http_max_readings,
        )

    async def _drain(self, link: Link) -> None:
        """Take nothing new and wait for the commits under way; their acknowledgements go out with them.

        What cannot be committed in time stays with the broker.
        """
        self._draining = True
        link.pause()
        await self._pipeline.settle(self._idle.wait())
        # One turn of the loop, so that acknowledgements queued as callbacks reach the socket.
        await asyncio.sleep(0.05)


def _origin(topic: str) -> str:
    return f"mqtt:{topic}"[:1000]


def _shared(topic_filter: str, share: str) -> str:
    """Give the filter as a subscription that workers share, or as it is where there is no share."""
    return f"$share/{share}/{topic_filter}" if share else topic_filter


async def _first(stop: asyncio.Event, *waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until `stop` is set or one of the coroutines ends; raise what it raised, cancel the others."""
    tasks = [asyncio.create_task(wait) for wait in (stop.wait(), *waits)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
