"""Readings over MQTT 5 at QoS 1: acknowledged means that the broker has taken a message over.

gmqtt 0.8 has no callback for an acknowledgement. It keeps each unacknowledged message in a storage that
the caller may bring along, and takes it out when the acknowledgement arrives: so the storage is where
messages are counted. (It does not look at the reason in a PUBACK: a message that the broker refuses by its
access rules counts as acknowledged.) Its own reconnecting is not used: after a connection that the broker
has forgotten, gmqtt drops what was unacknowledged and never frees the packet ids. A lost connection is
replaced by a new client instead, which sends again all that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, Self
from uuid import uuid4
from zlib import crc32

import msgspec
from gmqtt import Client
from gmqtt.mqtt.handler import MQTTConnectError
from gmqtt.storage import PersistentStorage

from service.broker import BrokerAddress, explain_tls, may_pass, words
from service.errors import FleetwattError
from service.readings import Reading, kind_of
from service.simulator.progress import Progress
from service.simulator.sender import FIRST_PAUSE_S, Idle, next_pause_s

_IN_FLIGHT: Final = 1000
_CONNECT_TIMEOUT_S: Final = 10.0
_KEEPALIVE_S: Final = 20
# gmqtt reconnects while failures <= retries; 0 would still allow a first try of its own.
_NEVER: Final = -2
# gmqtt reports lost connections on stderr unless someone listens; `progress.problem` says it already.
_LOG: Final = logging.getLogger("gmqtt")
_LOG.addHandler(logging.NullHandler())


class _Message(msgspec.Struct):
    topic: str
    payload: bytes
    first_sent: float


class _Unacknowledged(PersistentStorage):  # type: ignore[misc]
    """Messages by packet id, from `publish` to the acknowledgement; the latter calls `acknowledged`."""

    def __init__(self, acknowledged: Callable[[_Message], None]) -> None:
        super().__init__()
        self._acknowledged = acknowledged
        self.publishing: _Message | None = None
        self.messages: dict[int, _Message] = {}

    def push_message(self, mid: int, raw_package: bytes) -> None:
        # gmqtt calls this inside of publish(), so this is the message that is being published.
        if self.publishing is not None:
            self.messages[mid] = self.publishing
        super().push_message(mid, raw_package)

    def remove_message_by_mid(self, mid: int) -> None:
        super().remove_message_by_mid(mid)
        message = self.messages.pop(mid, None)
        if message is not None:
            self._acknowledged(message)


class _Link:
    """One connection to the broker, replaced whenever it is lost; messages keep their order."""

    def __init__(self, broker: BrokerAddress, client_id: str, progress: Progress, idle: Idle) -> None:
        self._broker = broker
        self._client_id = client_id
        self._progress = progress
        self._idle = idle
        self._again: deque[_Message] = deque()
        self._client: Client | None = None
        self._storage = _Unacknowledged(self._on_acknowledged)
        self._window = 0
        self._room = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and stay connected from now on. Raises FleetwattError if the first try fails."""
        try:
            await self._connect()
        except (OSError, TimeoutError, MQTTConnectError) as error:
            reason = explain_tls(self._broker, error) or words(error)
            raise FleetwattError(f"no connection to the broker at {self._broker}: {reason}") from error
        self._keeper = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """Disconnect for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._disconnect(self._client)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish one message, once there is a connection and room in its window."""
        # What a lost connection left behind goes first, so that a device's readings keep their order.
        while self._again or len(self._storage.messages) >= self._window:
            self._room.clear()
            await self._wait_for_room()
        self._idle.begin()
        self._progress.sent += 1
        self._hand_over(_Message(topic, payload, monotonic()))

    async def _wait_for_room(self) -> None:
        keeper = self._keeper
        if keeper is not None and keeper.done():
            keeper.result()
        await self._room.wait()

    def _hand_over(self, message: _Message) -> None:
        if self._client is None:
            self._again.append(message)
            return
        self._storage.publishing = message
        self._client.publish(message.topic, message.payload, qos=1)
        self._storage.publishing = None

    def _on_acknowledged(self, message: _Message) -> None:
        self._progress.acknowledged += 1
        self._progress.latencies.add(monotonic() - message.first_sent)
        self._idle.end()
        self._send_again()

    def _send_again(self) -> None:
        while self._again and len(self._storage.messages) < self._window:
            self._hand_over(self._again.popleft())
        if not self._again:
            self._room.set()

    async def _keep_connected(self) -> None:
        """Replace the connection each time it is lost, and send again what it left unacknowledged."""
        try:
            while True:
                await self._lost.wait()
                await self._disconnect(self._client)
                left = list(self._storage.messages.values())
                self._storage = _Unacknowledged(self._on_acknowledged)
                self._again.extendleft(reversed(left))
                await self._reconnect()
                self._progress.retries += len(left)
                self._send_again()
        finally:
            # Whoever waits for room must wake up to see the error.
            self._room.set()

    async def _reconnect(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._connect()
            except (OSError, TimeoutError, MQTTConnectError) as error:
                if isinstance(error, MQTTConnectError) and not may_pass(error):
                    raise FleetwattError(f"the broker refuses the connection: {error}") from error
                self._progress.problem = f"broker: {words(error)}"
                await asyncio.sleep(pause_s)
                pause_s = next_pause_s(pause_s)
            else:
                self._progress.problem = ""
                return

    async def _connect(self) -> None:
        lost = self._lost = asyncio.Event()
        client = Client(self._client_id, clean_session=True, persistent_storage=self._storage, logger=_LOG)
        client.reconnect_retries = _NEVER
        receive_maximum = 65_535

        def on_connect(_client: Client, _flags: int, _code: int, properties: dict[str, Any]) -> None:
            nonlocal receive_maximum
            receive_maximum = properties.get("receive_maximum", [receive_maximum])[0]

        def on_disconnect(_client: Client, _packet: object, _error: object = None) -> None:
            self._window = 0
            lost.set()

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        if self._broker.user is not None:
            client.set_auth_credentials(self._broker.user, self._broker.password)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await client.connect(
                    self._broker.host, self._broker.port, ssl=self._broker.ssl(), keepalive=_KEEPALIVE_S
                )
        except BaseException:
            await self._disconnect(client)
            raise
        self._client = client
        # gmqtt raises OverflowError one message before the broker's receive maximum.
        self._window = 0 if lost.is_set() else max(1, min(_IN_FLIGHT, receive_maximum - 1))

    async def _disconnect(self, client: Client | None) -> None:
        self._client, self._window = None, 0
        if client is not None:
            try:
                await asyncio.wait_for(client.disconnect(), 1.0)
            except (OSError, TimeoutError) as error:
                self._progress.problem = f"broker: {words(error)}"


class MqttSender:
    """Sends each reading as one message on telemetry/{kind}/{id}; some connections share the devices."""

    def __init__(self, broker: BrokerAddress, progress: Progress, *, connections: int = 4) -> None:
        self.progress = progress
        self.batch = 1
        self._idle = Idle()
        run = uuid4().hex[:8]
        self._links = [
            _Link(broker, f"fleetwatt-simulator-{run}-{number}", progress, self._idle)
            for number in range(connections)
        ]
        self._encode = msgspec.json.Encoder().encode

    async def __aenter__(self) -> Self:
        try:
            for link in self._links:
                await link.open()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(link.close() for link in self._links))

    async def send(self, readings: Sequence[Reading]) -> None:
        """Publish readings, each device always over the same connection, so that they keep their order."""
        for reading in readings:
            device_id = reading.device_id
            kind = kind_of(reading)
            link = self._links[crc32(device_id.encode()) % len(self._links)]
            await link.publish(f"telemetry/{kind}/{device_id}", self._encode(reading))

    async def drain(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything; False if that took too long."""
        return await self._idle.wait(timeout_s)
