"""`fleetwatt doctor` on certificates that end: the broker's by a handshake, others by reading their files."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from service.doctor.certificates import validity
from service.doctor.examine import examine
from service.doctor.finding import Finding, Patient
from service.settings import Settings
from tests.support import servers
from tests.support.certificates import Authority
from tests.support.doctor import running_broker

TLS = """allow_anonymous true
listener {{port}} 127.0.0.1
certfile {certificate}
keyfile {key}
"""
CLIENTS = "cafile {}\nrequire_certificate true\nuse_identity_as_username true\n"


@pytest.fixture
def authority() -> Iterator[Authority]:
    """Give an authority, whose files the broker's account can read."""
    with servers.scratch_dir() as folder:
        yield Authority(folder)


def found(settings: Settings) -> list[Finding]:
    """Give what the doctor says of certificates."""
    return [each for each in examine(Patient(settings=settings)).findings if each.check == "certificates"]


@pytest.mark.parametrize(
    ("days", "severity"), [(400, None), (31, None), (29, "warning"), (6.5, "error"), (-2, "error")]
)
def test_the_broker_shows_one(authority: Authority, days: float, severity: str | None) -> None:
    """On the port of the workers, with whose certificate it is asked; one that has ended is told, too."""
    certificate, key = authority.issue("broker", "localhost", days=days)
    own, own_key = authority.issue("worker", user="fleetwatt")
    text = TLS.format(certificate=certificate, key=key) + CLIENTS.format(authority.file)
    with running_broker(text) as (port, _):
        said = found(
            Settings(
                mqtt_url=f"mqtts://localhost:{port}",
                mqtt_ca_file=str(authority.file),
                mqtt_client_cert_file=str(own),
                mqtt_client_key_file=str(own_key),
            )
        )
    assert [one.severity for one in said] == ([severity] if severity else [])
    if severity:
        [one] = said
        assert f"the broker at localhost:{port} {'ended' if days < 0 else 'ends'} on " in one.what
        assert one.command


@pytest.mark.parametrize("setting", ["http_tls_cert_file", "mqtt_client_cert_file"])
@pytest.mark.parametrize(
    ("days", "life", "severity"),
    [
        (365, 365, None),
        (20, 365, "warning"),
        (2, 365, "error"),
        (-1, 365, "error"),
        # Some authorities sign for days only: renewed in time these are never older than two thirds.
        (3, 6, None),
        (1.5, 6, "warning"),
        (0.5, 6, "error"),
    ],
)
def test_files(authority: Authority, setting: str, days: float, life: float, severity: str | None) -> None:
    """Of the HTTP service and of the worker, without their keys."""
    certificate, _ = authority.issue("own", "fleet.example", days=days, life=life)
    said = found(msgspec.structs.replace(Settings(), **{setting: str(certificate)}))
    assert [one.severity for one in said] == ([severity] if severity else [])
    assert all(str(certificate) in one.what for one in said)


def test_of_a_chain_the_first_to_end_counts(authority: Authority, tmp_path: Path) -> None:
    """A server's file holds those of authorities between, too."""
    chain = tmp_path / "chain.pem"
    chain.write_text(
        "".join(authority.issue(f"c{days}", "h.example", days=days)[0].read_text() for days in (300, 10))
    )
    [one] = found(Settings(http_tls_cert_file=str(chain)))
    assert (one.severity, "in 10 days" in one.what) == ("warning", True)


def test_what_cannot_be_read_is_told(authority: Authority, tmp_path: Path) -> None:
    """A file that is missing or damaged keeps no other certificate from being looked at."""
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    certificate, _ = authority.issue("own", "fleet.example", days=3)
    for file in (damaged, tmp_path / "missing.pem"):
        said = found(Settings(http_tls_cert_file=str(file), mqtt_client_cert_file=str(certificate)))
        assert [(one.severity, "cannot be read" in one.what) for one in said] == [
            ("error", False),
            ("warning", True),
        ]


@pytest.mark.parametrize("days", [-9000, 30, 3650, 365 * 40])
def test_dates_are_read_as_others_read_them(authority: Authority, days: int) -> None:
    """Before and after 2050, from which on they are written in another way."""
    pem = authority.issue("leaf", "h.example", days=days, life=20)[0].read_text()
    known = x509.load_pem_x509_certificate(pem.encode())
    read = validity(ssl.PEM_cert_to_DER_cert(pem))
    assert read.begins == known.not_valid_before_utc.timestamp()
    assert read.ends == known.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("text", [b"", b"\x30", b"\x30\x03\x30\x01\x02", b"no certificate", b"\x30\x84\xff"])
def test_what_is_no_certificate(text: bytes) -> None:
    """Is refused, whatever it is."""
    with pytest.raises(ValueError, match="no certificate"):
        validity(text)
