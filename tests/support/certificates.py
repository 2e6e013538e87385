"""Certificates for tests, made by an authority of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """A certificate authority; writes PEM files that the servers' account can read."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._write(self.file, self._authority.cert_pem.bytes())

    def issue(
        self, name: str, *hosts: str, expired: bool = False, user: str = "", days: float = 0, life: float = 0
    ) -> tuple[Path, Path]:
        """Give certificate and key for hosts, or for a user whose name is the common name.

        `days` is in how many days it ends, and `life` for how many it was made.
        """
        days = -1 if expired else days
        expires = datetime.now(UTC) + timedelta(days=days) if days else None
        leaf = self._authority.issue_cert(
            *hosts or ("client.invalid",),
            common_name=user or None,
            not_before=expires - timedelta(days=life) if expires and life else None,
            not_after=expires,
        )
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        self._write(certificate, b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self._write(key, leaf.private_key_pem.bytes())
        return certificate, key

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        file.write_bytes(content)
        file.chmod(0o644)
