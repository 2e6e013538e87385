"""Telemetry over MQTT 5: a persistent session, shared subscriptions, acknowledged after the commit.

Each connection has a gmqtt client of its own, and reconnecting is done here. So an acknowledgement can
only go out on the connection that its message came from (packet ids mean nothing on the next one), the
pause between tries grows with jitter, and a refusal that no retry can mend ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import gmqtt
from gmqtt.mqtt.constants import MQTTv50
from gmqtt.mqtt.handler import MQTTConnectError

from service import lifecycle, log
from service.broker import BrokerAddress, may_pass
from service.errors import FleetwattError, SettingsError
from service.ingest.decode import decode
from service.ingest.outcome import Decoded, Rejection
from service.ingest.pipeline import Pipeline
from service.readings import TimeRule
from service.settings import Settings

TOPIC_FILTER: Final = "telemetry/+/+"
_SHARE_BY_DEFAULT: Final = "fleetwatt"
# A message that could not be stored is delivered again only on a new connection: not at once, though.
_REDELIVERY_PAUSE_S: Final = 1.0
_TOPIC: Final = re.compile(r"telemetry/(?P<kind>meter|vehicle)/(?P<id>[A-Za-z0-9._:\-]{1,64})")

_CONNECT_TIMEOUT_S: Final = 10.0
_PAUSE_MAX_S: Final = 10.0


# Handles a message of another kind, given its topic and payload. Once it returns, what became of the message
# is committed; what it raises leaves the message with the broker.
Handler = Callable[[str, bytes], Awaitable[None]]


class BrokerRefusedError(FleetwattError):
    """The broker will not have us, and asking again would not help."""


class _LeftUnacknowledged(Exception):  # noqa: N818 - no error: the broker keeps the message for later
    """Ends the handling of a message that must stay in the broker's session."""


class Consumer:
    """Takes telemetry from the broker and hands it to the pipeline until it is told to stop.

    `handlers` are for messages of other kinds: the first level of their topics, which have two, to what
    takes them.
    """

    def __init__(
        self, settings: Settings, pipeline: Pipeline, handlers: Mapping[str, Handler] | None = None
    ) -> None:
        if not settings.mqtt_url:
            raise SettingsError("no broker: set FLEETWATT_MQTT_URL, or start one with `fleetwatt up`")
        self._settings = settings
        self._pipeline = pipeline
        self._address = BrokerAddress.from_url(settings.mqtt_url)
        self._rule = TimeRule.of(settings)
        # Set while the broker delivers to us.
        self.connected = asyncio.Event()
        self._handlers = dict(handlers or {})
        self._lost = asyncio.Event()
        self._draining = False
        self._handling = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._log = log.get("mqtt")

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop` is set; then finish what was taken and leave the session there.

        Raises BrokerRefusedError when the broker refuses the credentials or the subscription for good.
        """
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(_quiet_about_unacknowledged)
        try:
            await self._run(stop)
        finally:
            loop.set_exception_handler(before)

    async def _run(self, stop: asyncio.Event) -> None:
        pause_s = 0.5
        while not stop.is_set():
            lost = self._lost = asyncio.Event()
            client = self._client(lost)
            try:
                await self._connect(client)
            except (OSError, TimeoutError, MQTTConnectError) as error:
                await _disconnect(client)
                self._log.warning(
                    "broker_away",
                    broker=str(self._address),
                    error=str(error) or type(error).__name__,
                    pause_s=round(pause_s, 1),
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s * random.uniform(0.5, 1.0)):
                        await stop.wait()
                pause_s = min(pause_s * 2, _PAUSE_MAX_S)
                continue
            pause_s = 0.5
            self._log.info(
                "broker_connected", broker=str(self._address), client_id=self._settings.mqtt_client_id
            )
            self.connected.set()
            lifecycle.notify_ready()
            await _first(stop, lost)
            self.connected.clear()
            if lost.is_set():
                self._log.warning("broker_lost", broker=str(self._address))
                await asyncio.sleep(_REDELIVERY_PAUSE_S * random.uniform(0.5, 1.0))
            else:
                await self._drain()
            await _disconnect(client)

    def _client(self, lost: asyncio.Event) -> gmqtt.Client:
        client = gmqtt.Client(
            self._settings.mqtt_client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            session_expiry_interval=self._settings.mqtt_session_expiry_s,
            receive_maximum=self._settings.mqtt_receive_maximum,
        )
        # Below zero but not the library's "unlimited" (-1): it must never reconnect by itself.
        client.reconnect_retries = -2
        if self._address.user is not None:
            client.set_auth_credentials(self._address.user, self._address.password)
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: lost.set()
        return client

    async def _connect(self, client: gmqtt.Client) -> None:
        """Connect and subscribe; return once the broker granted the subscriptions."""
        granted: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()

        def on_subscribe(_client: gmqtt.Client, _mid: int, codes: tuple[int, ...], _properties: Any) -> None:
            if not granted.done():
                granted.set_result(codes)

        client.on_subscribe = on_subscribe
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await client.connect(
                    self._address.host,
                    self._address.port,
                    ssl=self._address.ssl(),
                    keepalive=30,
                    version=MQTTv50,
                )
                filters = [TOPIC_FILTER, *(f"{level}/+" for level in self._handlers)]
                share = self._settings.mqtt_share
                # The session may hold the other kind of subscription from before a change of settings.
                client.unsubscribe([_shared(one, "" if share else _SHARE_BY_DEFAULT) for one in filters])
                client.subscribe([gmqtt.Subscription(_shared(one, share), qos=1) for one in filters])
                codes = await granted
        except MQTTConnectError as error:
            if may_pass(error):
                raise
            raise BrokerRefusedError(
                f"the broker at {self._address} refused the connection: {error}; "
                "check user, password and client id in FLEETWATT_MQTT_URL and FLEETWATT_MQTT_CLIENT_ID"
            ) from None
        for one, code in zip(filters, codes, strict=True):
            if code >= 128:
                message = (
                    f"the broker at {self._address} refused to subscribe us to {_shared(one, share)} "
                    f"(code {code}): check its access rules, also those for shared subscriptions"
                )
                if one == TOPIC_FILTER:
                    raise BrokerRefusedError(message)
                # A broker whose rules are older than this kind of message must not cost us the readings.
                self._log.error("subscription_refused", error=message)

    async def _on_message(
        self, _client: gmqtt.Client, topic: str | bytes, payload: bytes, qos: int, _properties: Any
    ) -> int:
        """Handle one message; return 0 (success) only when all that is in it has been committed."""
        if self._draining:
            raise _LeftUnacknowledged
        self._handling += 1
        self._idle.clear()
        try:
            # gmqtt gives the raw bytes of a topic that is not UTF-8.
            name = topic if isinstance(topic, str) else topic.decode(errors="replace")
            handler = self._handlers.get(name.partition("/")[0])
            if handler is not None:
                await handler(name, bytes(payload))
            else:
                await self._pipeline.submit(self._decode(name, bytes(payload)), f"mqtt:{name}"[:1000])
        except Exception as error:
            self._log.warning("message_not_stored", qos=qos, error=f"{type(error).__name__}: {error}")
            # Left unacknowledged, it holds a place in the broker's window until the next connection.
            self._lost.set()
            raise _LeftUnacknowledged from error
        finally:
            self._handling -= 1
            if not self._handling:
                self._idle.set()
        return 0

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
            self._rule,
            kind=kind,
            topic_id=match["id"],
            max_readings=self._settings.http_max_readings,
        )

    async def _drain(self) -> None:
        """Take nothing new and wait for the commits under way; their acknowledgements go out with them.

        What cannot be committed in time stays with the broker.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._idle.wait()
        # One turn of the loop, so that acknowledgements queued as callbacks reach the socket.
        await asyncio.sleep(0.05)


def _shared(topic_filter: str, share: str) -> str:
    """Give the filter as a subscription that workers share, or as it is where there is no share."""
    return f"$share/{share}/{topic_filter}" if share else topic_filter


async def _disconnect(client: gmqtt.Client) -> None:
    """Close a connection that may be gone already, or never came to be."""
    with contextlib.suppress(OSError, TimeoutError, AttributeError):
        await asyncio.wait_for(client.disconnect(), 2.0)


async def _first(*events: asyncio.Event) -> None:
    """Wait for whichever event is set first."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _quiet_about_unacknowledged(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report stray exceptions as asyncio does, except the one that is meant to leave a message alone."""
    if not isinstance(context.get("exception"), _LeftUnacknowledged | asyncio.CancelledError):
        loop.default_exception_handler(context)
