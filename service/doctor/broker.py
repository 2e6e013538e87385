"""The broker as a client sees it: what it grants, and what it tells of itself under $SYS.

The doctor must not harm a session: it asks for one of its own by a random client id, and takes what there is
under it as it is. Where the broker makes the user's name the client id, that is a worker's; then it leaves at
once, and has acknowledged nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any, Final

import gmqtt
import msgspec
from gmqtt.mqtt.constants import MQTTv50

from service.broker import BrokerAddress, closing_error
from service.settings import Settings

_TIMEOUT_S: Final = 10.0
# Retained topics come at once; Mosquitto writes them anew every 10 s, and only what has changed.
_SYS_S: Final = 1.0
_TOPICS: Final = (
    "$SYS/broker/version",
    "$SYS/broker/clients/disconnected",
    "$SYS/broker/publish/messages/dropped",
)


class Seen(msgspec.Struct):
    """What a broker told: properties of its CONNACK by name, and values of $SYS by topic."""

    granted: dict[str, Any] = {}
    told: dict[str, str] = {}
    session_was_there: bool = False


async def see(settings: Settings) -> Seen:
    """Connect, listen for a moment, and leave nothing behind.

    Raises OSError, TimeoutError, MQTTConnectError, or SettingsError for an address that cannot be read.
    """
    address = BrokerAddress.of(settings)
    seen = Seen()
    client = gmqtt.Client(
        f"fleetwatt-doctor-{secrets.token_hex(6)}",
        clean_session=False,
        optimistic_acknowledgement=False,
        session_expiry_interval=settings.mqtt_session_expiry_s,
        receive_maximum=1,
    )
    client.reconnect_retries = -2
    if address.user is not None:
        client.set_auth_credentials(address.user, address.password)

    def connected(_client: Any, flags: int, _code: int, _properties: Any) -> None:
        seen.session_was_there = bool(flags & 1)
        # What the library hands over has our own wishes in the place of the broker's answers.
        answered = client._package_handler._connack_properties  # noqa: SLF001
        seen.granted = {name: values[0] for name, values in answered.items()}

    # The library acknowledges only what a coroutine function takes: what is not of $SYS is somebody else's.
    def heard(_client: Any, topic: str, payload: bytes, _qos: int, _properties: Any) -> None:
        if topic.startswith("$SYS/"):
            seen.told[topic] = payload.decode(errors="replace")

    client.on_connect = connected
    client.on_message = heard
    try:
        await _connect(client, address)
        if not seen.session_was_there:
            client.subscribe([gmqtt.Subscription(topic, qos=0) for topic in _TOPICS])
            await asyncio.sleep(_SYS_S)
    finally:
        with contextlib.suppress(OSError, TimeoutError, AttributeError):
            # A session that was ours ends with the connection; another one is kept as it was.
            ending = {} if seen.session_was_there else {"session_expiry_interval": 0}
            await asyncio.wait_for(client.disconnect(**ending), 2.0)
    return seen


async def _connect(client: gmqtt.Client, address: BrokerAddress) -> None:
    lost = asyncio.Event()
    client.on_disconnect = lambda *_: lost.set()
    connecting = asyncio.ensure_future(
        client.connect(address.host, address.port, ssl=address.ssl(), keepalive=30, version=MQTTv50)
    )
    losing = asyncio.ensure_future(lost.wait())
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await asyncio.wait({connecting, losing}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            raise closing_error(client) or ConnectionError("the broker closed the connection")
        await connecting
    finally:
        for task in (connecting, losing):
            task.cancel()
        await asyncio.gather(connecting, losing, return_exceptions=True)
