"""Retained messages over MQTT 5 at QoS 1, on a connection that lives while there is something to publish.

gmqtt 0.8 frees a message at its PUBACK without looking at the reason in it, so one that the broker refuses,
say by its access rules, would count as delivered. Hence the PUBACK is read here too.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, Self

import msgspec
from gmqtt import Client
from gmqtt.mqtt.constants import MQTTv50
from gmqtt.storage import PersistentStorage

from service.broker import BrokerAddress

_CONNECT_TIMEOUT_S: Final = 10.0
_ACKNOWLEDGE_TIMEOUT_S: Final = 30.0
_KEEPALIVE_S: Final = 20
_IN_FLIGHT: Final = 100
# gmqtt reconnects while failures <= retries; 0 would still allow a first try of its own.
_NEVER: Final = -2
# Reasons of a PUBACK from here on are refusals (MQTT 5, 3.4.2.1).
_REFUSED: Final = 0x80
_LOST: Final = "the broker closed the connection"


class Message(msgspec.Struct, frozen=True):
    """A message to be retained; the broker forgets it after `expiry_s`, if given."""

    topic: str
    payload: bytes
    expiry_s: int | None = None


class _PacketIds(PersistentStorage):  # type: ignore[misc]
    """Notes the packet id of what is being published, which `publish` itself does not tell."""

    last: int = 0

    def push_message(self, mid: int, raw_package: bytes) -> None:
        self.last = mid
        super().push_message(mid, raw_package)


class _Link:
    """One connection, and the acknowledgements that are expected on it."""

    def __init__(self, address: BrokerAddress, client_id: str) -> None:
        self._address = address
        self._ids = _PacketIds()
        self._expected: dict[int, asyncio.Future[int]] = {}
        self._client = Client(client_id, clean_session=True, persistent_storage=self._ids)
        self._client.reconnect_retries = _NEVER
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        if address.user is not None:
            self._client.set_auth_credentials(address.user, address.password)
        handler = self._client._package_handler  # noqa: SLF001 - see the head of this file
        self._acknowledge = handler._handle_puback_packet  # noqa: SLF001
        handler._handle_puback_packet = self._on_puback  # noqa: SLF001
        self._lost = False
        self.window = _IN_FLIGHT

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._client.connect(
                    self._address.host,
                    self._address.port,
                    ssl=self._address.ssl(),
                    keepalive=_KEEPALIVE_S,
                    version=MQTTv50,
                )
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, TimeoutError, AttributeError):
            await asyncio.wait_for(self._client.disconnect(), 2.0)

    def publish(self, message: Message) -> asyncio.Future[int]:
        """Send a message; the future gives the reason code of its PUBACK, or fails with the connection."""
        if self._lost:
            raise ConnectionError(_LOST)
        options = {} if message.expiry_s is None else {"message_expiry_interval": message.expiry_s}
        self._client.publish(message.topic, message.payload, qos=1, retain=True, **options)
        reason: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._expected[self._ids.last] = reason
        return reason

    def _on_connect(self, _client: Client, _flags: int, _code: int, properties: dict[str, Any]) -> None:
        # gmqtt raises OverflowError one message before the broker's receive maximum.
        self.window = max(1, min(_IN_FLIGHT, properties.get("receive_maximum", [_IN_FLIGHT])[0] - 1))

    def _on_disconnect(self, _client: Client, _packet: object, _error: object = None) -> None:
        self._lost = True
        for reason in self._expected.values():
            if not reason.done():
                reason.set_exception(ConnectionError(_LOST))

    def _on_puback(self, command: int, packet: bytes) -> None:
        self._acknowledge(command, packet)
        reason = self._expected.pop(int.from_bytes(packet[:2], "big"), None)
        if reason is not None and not reason.done():
            reason.set_result(packet[2] if len(packet) > 2 else 0)


async def publish_retained(address: BrokerAddress, client_id: str, messages: list[Message]) -> dict[str, int]:
    """Publish messages in their order; return when the broker has answered for each.

    Gives the reason codes of those that it refused, by topic. Raises OSError, TimeoutError or
    MQTTConnectError when it is away or will not have us; some of the messages may have arrived then.
    """
    refused: dict[str, int] = {}
    async with _Link(address, client_id) as link:
        for start in range(0, len(messages), link.window):
            part = messages[start : start + link.window]
            async with asyncio.timeout(_ACKNOWLEDGE_TIMEOUT_S):
                reasons = await asyncio.gather(*[link.publish(message) for message in part])
            refused |= {
                message.topic: reason
                for message, reason in zip(part, reasons, strict=True)
                if reason >= _REFUSED
            }
    return refused
