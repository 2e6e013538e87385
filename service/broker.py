"""The MQTT broker's address, and which of its refusals may pass."""

from __future__ import annotations

import ssl
from typing import Final, Literal, Self
from urllib.parse import unquote, urlsplit

import msgspec
from gmqtt.mqtt.handler import MQTTConnectError

from service.errors import SettingsError

# CONNACK codes that the next try may not get: in MQTT 5 (3.2.2.2) unspecified, implementation specific,
# unavailable, busy, quota exceeded, use another server, rate exceeded; in MQTT 3.1.1 unavailable.
_PASSING: Final = frozenset({3, 128, 131, 136, 137, 151, 156, 159})


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where the broker listens and who we are to it."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read mqtt://[user:password@]host[:port], or mqtts:// for TLS; SettingsError for anything else."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or port == -1:
            raise SettingsError(
                "a broker's address must look like mqtt://[user:password@]host[:port], or mqtts:// for TLS"
            )
        tls = parts.scheme == "mqtts"
        return cls(
            host=parts.hostname,
            port=port or (8883 if tls else 1883),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=tls,
        )

    def ssl(self) -> ssl.SSLContext | Literal[False]:
        """Give the TLS context, or False for plain TCP."""
        return ssl.create_default_context() if self.tls else False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def may_pass(refusal: MQTTConnectError) -> bool:
    """Tell whether the broker may answer differently next time; wrong credentials stay wrong."""
    return refusal._code in _PASSING  # noqa: SLF001 - the library offers the code only within its text
