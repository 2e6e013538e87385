"""Sign-ins: a browser shows a key once and gets a cookie, which reads until it ends.

The cookie holds 256 random bits; the database knows their SHA-256. It is no key: it gives the scope read,
through GET and HEAD alone, whatever the key may do.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from datetime import UTC, datetime
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie

from service import log
from service.access.cache import LookUps
from service.access.store import KeyStore, StoredSignIn
from service.settings import Settings
from service.web.headers import header

Connection = ASGIConnection[Any, Any, Any, Any]

COOKIE: Final = "fleetwatt"
# A browser takes a name with this prefix over TLS only, and from nobody but the host itself.
SECURE_COOKIE: Final = f"__Host-{COOKIE}"
_TOKEN_BYTES: Final = 32
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class SignIns:
    """Begins and ends sign-ins; what is `known` of them is believed as long as what is known of keys."""

    def __init__(self, store: KeyStore, settings: Settings) -> None:
        self.known: LookUps[StoredSignIn] = LookUps(store.find_sign_ins, settings.key_cache_s)
        self._store = store
        self._hours = settings.sign_in_hours
        self._tls = bool(settings.http_tls_cert_file)
        self._log = log.get("access")

    async def begin(self, connection: Connection, key_id: str) -> Cookie | None:
        """Begin one with a key; give the cookie to set, None where the key does not read (any more).

        Raises DatabaseUnavailableError.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        ends = await self._store.begin_sign_in(_sha256(token), key_id, self._hours)
        if ends is None:
            return None
        self._log.info("signed_in", key_id=key_id)
        lasts_s = max(1, math.ceil((ends - datetime.now(UTC)).total_seconds()))
        return _cookie(SECURE_COOKIE if self._over_tls(connection) else COOKIE, token, lasts_s)

    async def end(self, connection: Connection) -> list[Cookie]:
        """End the one whose cookie came; give what takes it from the browser.

        Raises DatabaseUnavailableError.
        """
        token = self._token(connection)
        if token is not None:
            await self._store.end_sign_in(_sha256(token))
            self.known.forget(_sha256(token).hex())
        return [_cookie(name, "", 0) for name in (COOKIE, SECURE_COOKIE) if name in connection.cookies]

    def shown(self, connection: Connection) -> str | None:
        """Give the name by which `known` has the sign-in whose cookie came; None where none came."""
        token = self._token(connection)
        return None if token is None else _sha256(token).hex()

    def _token(self, connection: Connection) -> str | None:
        if not header(connection.scope, b"cookie"):
            return None
        token = connection.cookies.get(SECURE_COOKIE)
        if token is None and not self._tls:
            token = connection.cookies.get(COOKIE)
        return token if token is not None and _TOKEN.fullmatch(token) else None

    def _over_tls(self, connection: Connection) -> bool:
        """Tell whether the browser speaks TLS, to us or to a proxy before us.

        It names the page that it signs in from, so nobody has to set what a proxy does; pages of other
        origins do not get this far (service/web/hosts.py).
        """
        return self._tls or header(connection.scope, b"origin").lower().startswith("https://")


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _cookie(name: str, token: str, lasts_s: int) -> Cookie:
    return Cookie(
        name, value=token, max_age=lasts_s, httponly=True, samesite="strict", secure=name == SECURE_COOKIE
    )
