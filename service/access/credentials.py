"""What a request shows, a key or the cookie of a sign-in: whether it is good, and what is told if not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from litestar.connection import ASGIConnection

from service.access.cache import Believed
from service.access.key import NOBODY_SHA256, Key, parse
from service.access.store import StoredKey, StoredSignIn
from service.web.problems import Problem

Connection = ASGIConnection[Any, Any, Any, Any]

_SEND_KEY: Final = "send a key: Authorization: Bearer fw_... (the operator makes one: fleetwatt key create)"


class KeyProblem(Problem):
    """A 401: no key, or none that is good."""

    def __init__(self, code: str, detail: str) -> None:
        challenge = "Bearer" if code == "missing_key" else 'Bearer error="invalid_token"'
        headers = {"WWW-Authenticate": challenge}
        super().__init__(401, code, detail, title="A good key is needed", headers=headers)


def sent_keys(connection: Connection) -> set[str]:
    """Give the keys in the headers, as they came; several only where they differ."""
    sent = set(connection.headers.getall("x-api-key", []))
    for line in connection.headers.getall("authorization", []):
        scheme, _, credentials = line.partition(" ")
        # Another scheme is for somebody before us, such as a proxy.
        if scheme.lower() == "bearer":
            sent.add(credentials.strip())
    return sent


def one_key(sent: Iterable[str]) -> Key:
    """Read the one key that was sent. Raises 401."""
    texts = list(sent)
    if not texts:
        raise KeyProblem("missing_key", f"this service takes no request without a key: {_SEND_KEY}")
    if len(texts) > 1:
        raise KeyProblem("bad_key", "the request holds several keys that differ: send one")
    key = parse(texts[0])
    if key is None:
        raise bad_key()
    return key


def bad_key() -> KeyProblem:
    """Give the one answer to keys that are cut off, unknown or wrong: which it is would help a guesser."""
    return KeyProblem("bad_key", f"the key is not one that this service knows: {_SEND_KEY}")


def check_key(key: Key, found: Believed[StoredKey] | None) -> Believed[StoredKey]:
    """Hold a key against what is stored. Raises 401, which tells more only to who has the right secret."""
    stored = found.value if found else None
    if not key.matches(stored.secret_sha256 if stored else NOBODY_SHA256) or stored is None or found is None:
        raise bad_key()
    if stored.revoked_at is not None:
        raise KeyProblem("revoked_key", f"the key {stored.key_id} was revoked: {_SEND_KEY}")
    if stored.expired:
        raise KeyProblem("expired_key", f"the time of the key {stored.key_id} is over: {_SEND_KEY}")
    return found


def check_sign_in(found: Believed[StoredSignIn] | None) -> Believed[StoredSignIn]:
    """Tell whether a sign-in still holds. Raises 401."""
    if found is None or found.value.expired:
        raise KeyProblem("signed_out", "the sign-in is over: sign in again at /sign-in, or send a key")
    return found
