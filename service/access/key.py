"""API keys as texts: `fw_<key id>_<secret>`. Only the SHA-256 of the secret is ever stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from typing import Final, NamedTuple

_ID_LENGTH: Final = 12
_ID_CHARACTERS: Final = string.ascii_lowercase + string.digits
# 256 bits from the system's generator: beyond guessing, so a fast hash is enough.
_SECRET_BYTES: Final = 32
# The secret is Base64 for URLs and may hold an underscore of its own.
_KEY: Final = re.compile(r"fw_([a-z0-9]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
KEY_ID: Final = re.compile(r"[a-z0-9]{12}", re.ASCII)
# What an unknown key is compared with, so that it costs what a known one costs.
NOBODY_SHA256: Final = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).digest()


class Key(NamedTuple):
    """The two parts of a key: the id is public, the secret is not."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        """Name the key without its secret, which must not reach a log or a traceback."""
        return f"Key({self.key_id})"

    @property
    def text(self) -> str:
        """Give the key as its holder sends it."""
        return f"fw_{self.key_id}_{self.secret}"

    @property
    def sha256(self) -> bytes:
        """Give what is stored of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def matches(self, stored_sha256: bytes) -> bool:
        """Hold the secret against what is stored, in a time that tells nothing of where they differ."""
        return hmac.compare_digest(self.sha256, stored_sha256)


def make() -> Key:
    """Make a new key."""
    key_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
    return Key(key_id, secrets.token_urlsafe(_SECRET_BYTES))


def parse(text: str) -> Key | None:
    """Take a key apart; None for what is no key."""
    found = _KEY.fullmatch(text)
    return Key(found[1], found[2]) if found else None
