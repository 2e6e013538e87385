"""When certificates end: the broker's, as it shows it, and those in files that settings name.

Only dates are read. Whether a certificate is to be trusted is found out by who connects.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from service.broker import BrokerAddress
from service.doctor.finding import Finding, Patient
from service.errors import SettingsError
from service.settings import Settings

_DAY_S: Final = 86_400.0
_WARN_S: Final = 30 * _DAY_S
_ERROR_S: Final = 7 * _DAY_S
_TIMEOUT_S: Final = 5.0
_SIGN: Final = "have it signed anew as it was made (docs/containers.md, deploy/mosquitto/README.md)"
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# Tags of DER (X.690, 8.1.2): the version of a certificate, and the two kinds of times.
_VERSION: Final = 0xA0
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


class Validity(NamedTuple):
    """From when until when a certificate holds, in Unix time."""

    begins: float
    ends: float


def expiry(patient: Patient) -> list[Finding]:
    """Tell of certificates that end soon, or have."""
    settings = patient.settings
    shown = _shown_by_broker(settings)
    found: list[Finding] = []
    if shown is not None:
        found += _judge(
            patient,
            f"the certificate of the broker at {shown[0]}",
            shown[1],
            "then no device and no worker connects to it",
            f"{_SIGN}, and restart the broker, never reload",
        )
    for name, why, command in (
        (
            "http_tls_cert_file",
            "then no client talks to the HTTP service",
            "renew it and restart `fleetwatt serve`",
        ),
        (
            "mqtt_client_cert_file",
            "then the broker lets no worker in",
            _SIGN,
        ),
    ):
        file = getattr(settings, name)
        if file:
            try:
                every = _in_file(Path(file))
            except (OSError, ValueError) as error:
                unread = f"the certificate in {file} cannot be read: {error}"
                found.append(Finding("warning", "certificates", unread, "nobody knows when it ends"))
            else:
                found += _judge(patient, f"the certificate in {file}", every, why, command)
    return found


def _judge(patient: Patient, what: str, every: list[Validity], why: str, command: str) -> Iterator[Finding]:
    """Judge the first to end of a chain; what lives for weeks by design is renewed later in proportion."""
    if not every:
        return
    first = min(every, key=lambda one: one.ends)
    left_s, life_s = first.ends - patient.now(), first.ends - first.begins
    if left_s >= min(_WARN_S, life_s / 3):
        return
    when = f"{datetime.fromtimestamp(first.ends, UTC):%Y-%m-%d %H:%M} UTC"
    said = f"ended on {when}" if left_s <= 0 else f"ends on {when}, in {left_s / _DAY_S:.0f} days"
    severe = left_s < min(_ERROR_S, life_s / 10)
    yield Finding("error" if severe else "warning", "certificates", f"{what} {said}", why, command)


def _shown_by_broker(settings: Settings) -> tuple[BrokerAddress, list[Validity]] | None:
    """Give what the broker shows to a worker; None where there is no TLS, or nobody answers."""
    # Settings that do not fit and a broker that is away are told by the look at the broker.
    with contextlib.suppress(SettingsError, OSError, ValueError):
        address = BrokerAddress.of(settings) if settings.mqtt_url else None
        context = address.ssl() if address else None
        if address and context:
            # One that has ended is shown, too; nothing but our own certificate is sent.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with (
                socket.create_connection((address.host, address.port), _TIMEOUT_S) as plain,
                context.wrap_socket(plain, server_hostname=address.host) as encrypted,
            ):
                return address, [validity(encrypted.getpeercert(binary_form=True) or b"")]
    return None


def _in_file(file: Path) -> list[Validity]:
    """Give those of all certificates in a file; OSError or ValueError where it cannot be read."""
    every = _PEM.findall(file.read_text(errors="replace"))
    return [validity(ssl.PEM_cert_to_DER_cert(one)) for one in every]


def validity(certificate: bytes) -> Validity:
    """Read the times of a certificate in DER (RFC 5280, 4.1); ValueError for what is none.

    The standard library reads them of a certificate that it has verified, so never of one that has ended.
    """
    try:
        [whole, *_] = _members(certificate)
        [to_be_signed, *_] = _members(whole[1])
        fields = _members(to_be_signed[1])
        # Serial number, algorithm, issuer, validity; before them the version, unless it is the first.
        times = _members(fields[4 if fields[0][0] == _VERSION else 3][1])
        begins, ends = (
            datetime.strptime(text.decode(), _TIMES[tag]).replace(tzinfo=UTC).timestamp()
            for tag, text in times
        )
    except (ValueError, IndexError, KeyError):
        raise ValueError("it is no certificate") from None
    return Validity(begins, ends)


def _members(content: bytes) -> list[tuple[int, bytes]]:
    """Take the members of a DER value apart: the tag and the content of each."""
    found, at = [], 0
    while at < len(content):
        tag, length = content[at], content[at + 1]
        at += 2
        if length >= 0x80:
            size = length - 0x80
            length = int.from_bytes(content[at : at + size], "big")
            at += size
        found.append((tag, content[at : at + length]))
        at += length
    return found
