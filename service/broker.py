"""The MQTT broker's address, how it is spoken to, and which of its refusals may pass."""

from __future__ import annotations

import ssl
from typing import Any, Final, Literal, NoReturn, Self
from urllib.parse import unquote, urlsplit

import msgspec
from gmqtt.mqtt.handler import MQTTConnectError

from service.errors import FleetwattError, SettingsError
from service.settings import Settings

# CONNACK codes that the next try may not get: in MQTT 5 (3.2.2.2) unspecified, implementation specific,
# unavailable, busy, quota exceeded, use another server, rate exceeded; in MQTT 3.1.1 unavailable.
_PASSING: Final = frozenset({3, 128, 131, 136, 137, 151, 156, 159})


class BrokerRefusedError(FleetwattError):
    """The broker will not have us, or we will not have it, and asking again would not help."""


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where the broker listens, who we are to it, and by what we know it."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool
    ca_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read mqtt://[user:password@]host[:port], or mqtts:// for TLS; SettingsError for anything else."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _unreadable() from None
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise _unreadable()
        tls = parts.scheme == "mqtts"
        return cls(
            host=parts.hostname,
            port=port or (8883 if tls else 1883),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=tls,
        )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Put together what the settings say of the broker; what the URL tells goes first.

        Raises SettingsError for what cannot be read and for settings that do not go together.
        """
        url = cls.from_url(settings.mqtt_url)
        address = msgspec.structs.replace(
            url,
            user=url.user or settings.mqtt_user or None,
            password=url.password or settings.mqtt_password or None,
            ca_file=settings.mqtt_ca_file,
            client_cert_file=settings.mqtt_client_cert_file,
            client_key_file=settings.mqtt_client_key_file,
        )
        if address.password and not address.user:
            raise SettingsError("a password for the broker needs a user: set FLEETWATT_MQTT_USER")
        if not address.tls:
            for name in ("ca_file", "client_cert_file", "client_key_file"):
                if getattr(address, name):
                    raise SettingsError(
                        f"FLEETWATT_MQTT_{name.upper()} is for TLS, but FLEETWATT_MQTT_URL is mqtt://: "
                        "make it mqtts://, or nothing is encrypted and nobody is verified"
                    )
        if address.client_key_file and not address.client_cert_file:
            raise SettingsError("FLEETWATT_MQTT_CLIENT_KEY_FILE needs FLEETWATT_MQTT_CLIENT_CERT_FILE")
        # Files that cannot be read shall be told of at start.
        address.ssl()
        return address

    def ssl(self) -> ssl.SSLContext | Literal[False]:
        """Give the TLS context, or False for plain TCP; the files are read anew, so they may be rotated.

        Raises SettingsError that names the setting whose file cannot be read.
        """
        if not self.tls:
            return False
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise _unusable("FLEETWATT_MQTT_CA_FILE", self.ca_file, "certificates", error) from None
        if self.client_cert_file:
            try:
                context.load_cert_chain(
                    self.client_cert_file, self.client_key_file or None, password=_refuse_to_ask
                )
            except OSError as error:
                files = " and ".join(filter(None, (self.client_cert_file, self.client_key_file)))
                variable = "FLEETWATT_MQTT_CLIENT_CERT_FILE and FLEETWATT_MQTT_CLIENT_KEY_FILE"
                raise _unusable(variable, files, "a certificate and its private key", error) from None
        return context

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"BrokerAddress({self})"


def _unreadable() -> SettingsError:
    return SettingsError(
        "a broker's address must look like mqtt://[user:password@]host[:port], or mqtts:// for TLS"
    )


def _unusable(variable: str, file: str, wanted: str, error: OSError) -> SettingsError:
    reason = (
        "it is no such thing, or they do not match" if isinstance(error, ssl.SSLError) else error.strerror
    )
    return SettingsError(f"{variable}: cannot read {wanted} in PEM from {file!r} ({reason})")


def _refuse_to_ask() -> NoReturn:
    # OpenSSL would ask on the terminal.
    raise SettingsError("FLEETWATT_MQTT_CLIENT_KEY_FILE: the key has a passphrase; store it without one")


def may_pass(refusal: MQTTConnectError) -> bool:
    """Tell whether the broker may answer differently next time; wrong credentials stay wrong."""
    return refusal._code in _PASSING  # noqa: SLF001 - the library offers the code only within its text


def explain_tls(address: BrokerAddress, error: BaseException | None) -> str | None:
    """Say why the two sides do not agree on TLS, and what to do; None if the error is about something else.

    A connection that just ends is something else: a broker that stops does that, too.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the broker at {address} does not hold: "
            f"{error.verify_message.rstrip('.')}. Set "
            "FLEETWATT_MQTT_CA_FILE to the authority that signed it; the host in FLEETWATT_MQTT_URL must be "
            "a name in the certificate; an expired one must be renewed at the broker"
        )
    if not isinstance(error, ssl.SSLError) or isinstance(
        error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    ):
        return None
    reason = str(error.reason or "")
    if "ALERT" in reason:
        return (
            f"the broker at {address} refused our side of TLS ({reason}): set "
            "FLEETWATT_MQTT_CLIENT_CERT_FILE to a certificate that it trusts"
        )
    return f"no TLS with the broker at {address} ({reason}): is that its TLS port, as mqtts:// says?"


def words(error: BaseException) -> str:
    """Say what went wrong; a timeout has no words of its own."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def closing_error(client: Any) -> BaseException | None:
    """Give the error that ended a gmqtt client's connection; None if it ended without, or has not ended."""
    connection = client._connection  # noqa: SLF001 - the library only logs it
    if connection is None:
        return None
    closed = connection._protocol.closed  # noqa: SLF001
    return closed.exception() if closed.done() and not closed.cancelled() else None
