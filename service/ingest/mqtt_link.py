"""One connection to the broker, with a gmqtt client of its own that never reconnects by itself.

So an acknowledgement can only go out on the connection that its message came from (packet ids mean nothing
on the next one), and what fails on one connection says nothing of the next.

Messages are taken from the library as packets: its own way, a task and a write for each, costs some fifty
microseconds a message, four times what everything else takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import gmqtt
from gmqtt.mqtt.constants import MQTTCommands, MQTTv50
from gmqtt.mqtt.handler import MQTTConnectError
from gmqtt.mqtt.utils import unpack_variable_byte_integer

from service import log
from service.broker import BrokerAddress, BrokerRefusedError, closing_error, may_pass
from service.settings import Settings

if TYPE_CHECKING:
    from service.otel import Traces

_CONNECT_TIMEOUT_S: Final = 10.0
_KEEPALIVE_S: Final = 30
# Reason of a DISCONNECT: another connection has taken over our client id (MQTT 5, 3.14.2.1).
_TAKEN_OVER: Final = 0x8E
# Deliver what is retained to a new subscription, not at each reconnecting (MQTT 5, 3.8.3.1).
_RETAINED_ONCE: Final = 1

# PUBACK of two bytes: the packet's number, and by leaving out the reason, success (MQTT 5, 3.4.2.1).
_PUBACK: Final = b"\x40\x02"

# Takes a message, given its topic and payload. What it gives is done when all that is in it is committed, and
# fails or is cancelled if that will not be; None leaves the message with the broker.
Take = Callable[[str, bytes], asyncio.Future[Any] | None]


class Link:
    """A connection: `open`, `subscribe`, then messages come to `take`, until `lost` is set or `close`."""

    def __init__(
        self, settings: Settings, address: BrokerAddress, take: Take, traces: Traces | None = None
    ) -> None:
        self._address = address
        self._take = take
        self._traces = traces
        # Set once nothing more comes on this connection, or once it has to be replaced.
        self.lost = asyncio.Event()
        # The reason that the broker gave in its DISCONNECT, if it sent one.
        self.reason: int | None = None
        self._granted: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        self._paused: asyncio.TimerHandle | None = None
        self._client = gmqtt.Client(
            settings.mqtt_client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            session_expiry_interval=settings.mqtt_session_expiry_s,
            receive_maximum=settings.mqtt_receive_maximum,
            maximum_packet_size=settings.mqtt_max_packet_bytes,
        )
        # Below zero but not the library's "unlimited" (-1): it must never reconnect by itself.
        self._client.reconnect_retries = -2
        if address.user is not None:
            self._client.set_auth_credentials(address.user, address.password)
        # What has come and is not acknowledged yet: the packet's number and what tells of its commit.
        self._unacknowledged: deque[tuple[bytes, asyncio.Future[Any]]] = deque()
        self._settling: asyncio.Handle | None = None
        handlers = self._client._package_handler._handler_cache  # noqa: SLF001 - there is no other way in
        handlers[MQTTCommands.PUBLISH] = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._log = log.get("mqtt")

    @property
    def taken_over(self) -> bool:
        """Tell whether the broker gave our session to another client with the same id."""
        return self.reason == _TAKEN_OVER

    @property
    def unacknowledged(self) -> int:
        """Tell how many messages the broker waits for an acknowledgement of; after a loss for none."""
        return 0 if self.lost.is_set() else len(self._unacknowledged)

    async def open(self) -> None:
        """Connect; return once the broker has accepted us.

        Raises BrokerRefusedError when it never will, OSError, TimeoutError or MQTTConnectError when it may.
        """
        connecting = asyncio.ensure_future(
            self._client.connect(
                self._address.host,
                self._address.port,
                ssl=self._address.ssl(),
                keepalive=_KEEPALIVE_S,
                version=MQTTv50,
            )
        )
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await asyncio.wait({connecting, lost}, return_when=asyncio.FIRST_COMPLETED)
            answered = self._client._connack_received.is_set()  # noqa: SLF001
            if not connecting.done() and not answered:
                # A refusal by TLS comes after the handshake, as the error that ends the connection.
                raise closing_error(self._client) or ConnectionError("the broker closed the connection")
            await connecting
        except MQTTConnectError as error:
            if may_pass(error):
                raise
            raise BrokerRefusedError(
                f"the broker at {self._address} refused the connection: {error}; check "
                "FLEETWATT_MQTT_USER and FLEETWATT_MQTT_PASSWORD, or the login in FLEETWATT_MQTT_URL, and "
                "FLEETWATT_MQTT_CLIENT_ID"
            ) from None
        finally:
            for task in (connecting, lost):
                task.cancel()
            await asyncio.gather(connecting, lost, return_exceptions=True)

    async def subscribe(self, filters: Sequence[str], others: Sequence[str]) -> None:
        """Subscribe to filters, drop `others`; return once the broker has granted them.

        That may take long: what waits in the session comes first. Only a refusal of the first filter is an
        error (BrokerRefusedError): a broker whose rules are older than the other kinds of messages must not
        cost us the readings.
        """
        self._client.unsubscribe(list(others))
        self._client.subscribe(
            [gmqtt.Subscription(one, qos=1, retain_handling_options=_RETAINED_ONCE) for one in filters]
        )
        for one, code in zip(filters, await self._granted, strict=True):
            if code >= 128:
                message = (
                    f"the broker at {self._address} refused to subscribe us to {one} "
                    f"(code {code}): check its access rules, also those for shared subscriptions"
                )
                if one == filters[0]:
                    raise BrokerRefusedError(message)
                self._log.error("subscription_refused", error=message)

    def pause(self) -> None:
        """Read nothing more from the socket; the connection stays alive.

        What has been read already still comes, and may start the reading again: then call it again.
        """
        connection = self._client._connection  # noqa: SLF001 - the library has no way to stop reading
        if connection is None or connection.is_closing():
            return
        connection._transport.pause_reading()  # noqa: SLF001
        # Its stream reader pauses too while its buffer is full, and would resume by itself once it is not.
        connection._protocol._hard_reader._paused = False  # noqa: SLF001
        if self._paused is None:
            self._keep_alive()

    def resume(self) -> None:
        """Read again."""
        if self._paused is None:
            return
        self._paused.cancel()
        self._paused = None
        connection = self._client._connection  # noqa: SLF001
        if not connection.is_closing():
            connection._last_data_in = time.monotonic()  # noqa: SLF001
            connection._transport.resume_reading()  # noqa: SLF001

    def _keep_alive(self) -> None:
        """Forgive the broker's silence while we do not listen: its answers to our pings wait in the socket.

        Otherwise gmqtt would give up the connection after a minute, and all that was in flight on it would
        come a second time. That the other side is gone shows in the pings that it does not take.
        """
        connection = self._client._connection  # noqa: SLF001
        connection._last_data_in = time.monotonic()  # noqa: SLF001
        self._paused = asyncio.get_running_loop().call_later(_KEEPALIVE_S / 4, self._keep_alive)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Have nothing more dealt to our session; what it holds already still comes."""
        self._client.unsubscribe(list(filters))

    async def close(self, *, end_session: bool = False) -> None:
        """Close the connection, which may be gone or never came to be; `end_session` ends the session too."""
        properties = {"session_expiry_interval": 0} if end_session else {}
        if self._paused is not None:
            self._paused.cancel()
        with contextlib.suppress(OSError, TimeoutError, AttributeError):
            await asyncio.wait_for(self._client.disconnect(**properties), 2.0)
        connection = self._client._connection  # noqa: SLF001
        if connection is not None:
            # A farewell over TLS that nobody answers must not keep the socket.
            connection._transport.abort()  # noqa: SLF001

    def _on_publish(self, first: int, packet: bytes) -> None:
        """Take a PUBLISH (MQTT 5, 3.3). We allow no topic aliases, and ask for no more than QoS 1."""
        end = 2 + int.from_bytes(packet[:2], "big")
        topic = packet[2:end].decode(errors="replace")
        number = b""
        if first & 0x06:
            number = packet[end : end + 2]
            end += 2
        length, rest = unpack_variable_byte_integer(packet[end:])
        if self._traces is None:
            future = self._take(topic, rest[length:])
        else:
            future = self._traces.message(topic, rest[:length], rest[length:], self._take)
        if future is not None:
            self._unacknowledged.append((number, future))
            future.add_done_callback(self._on_done)

    def _on_done(self, _future: asyncio.Future[Any]) -> None:
        """Let one look serve all that one commit has brought about."""
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        """Acknowledge what is committed, in the order in which it came (MQTT 5, 4.6.0-2), in one write.

        A broker finds the packet at once then, instead of looking through all that are in flight.
        """
        self._settling = None
        packets: list[bytes] = []
        while self._unacknowledged and self._unacknowledged[0][1].done():
            number, future = self._unacknowledged.popleft()
            if future.cancelled():
                continue
            if (error := future.exception()) is not None:
                self._log.warning("message_not_stored", error=f"{type(error).__name__}: {error}")
                # Left unacknowledged, it holds a place in the broker's window until the next connection.
                self.lost.set()
            elif number:
                packets.append(_PUBACK + number)
        connection = self._client._connection  # noqa: SLF001
        if packets and not connection.is_closing():
            connection.send_package(b"".join(packets))

    def _on_disconnect(self, _client: gmqtt.Client, packet: bytes, _error: object = None) -> None:
        # The library sends an empty packet after the broker's own, when the connection has ended.
        if packet and self.reason is None:
            self.reason = packet[0]
        self.lost.set()

    def _on_subscribe(
        self, _client: gmqtt.Client, _mid: int, codes: tuple[int, ...], _properties: Any
    ) -> None:
        if not self._granted.done():
            self._granted.set_result(codes)
