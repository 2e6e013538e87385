"""The guard before every route: who asks, may they, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final

from litestar.connection import ASGIConnection, Request
from litestar.enums import HttpMethod
from litestar.handlers.base import BaseRouteHandler

from service import lifecycle, log, metrics
from service.access.cache import Believed, KeyCache
from service.access.key import NOBODY_SHA256, Key, parse
from service.access.rates import Rates
from service.access.store import KeyStore, StoredKey
from service.access.usage import Usage
from service.db import ReadPool
from service.errors import DatabaseUnavailableError
from service.loopback import is_loopback
from service.settings import Settings
from service.web.principal import EVERYBODY, PUBLIC, SESSIONS, Principal
from service.web.problems import Problem

Connection = ASGIConnection[Any, Any, Any, Any]

_SEND_KEY: Final = "send a key: Authorization: Bearer fw_... (the operator makes one: fleetwatt key create)"
_NOTED_EVERY_S: Final = 60.0
_DISCARD_S: Final = 5.0


class Guard:
    """Keeps out who has no business here; as a guard of the framework it is called before each route.

    Keys are required once there was one, and whenever the service listens on more than loopback.
    """

    def __init__(self, settings: Settings, pool: ReadPool) -> None:
        self._always = settings.http_auth == "keys" or not is_loopback(settings.http_host)
        self._body_max = settings.http_max_body_bytes
        self._store = KeyStore(settings)
        self._cache = KeyCache(self._store, settings.key_cache_s)
        self._rates = Rates(settings.http_rate)
        self._usage = Usage(pool)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Note in the background when keys were last used."""
        try:
            async with lifecycle.alongside(self._usage.run()):
                yield
        finally:
            await self._store.close()

    async def __call__(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """Let a request pass to its handler, and tell it who asks; else raise Problem 401, 403 or 429."""
        await self.admit(connection, handler.opt.get("need"), database=handler.opt.get("need_database", True))

    async def admit(self, connection: Connection, need: str | None, *, database: bool = True) -> None:
        """Do the same for what a route needs; see `needs` in service/web/principal.py."""
        # OPTIONS, which the framework answers, tells nothing but methods.
        if need == PUBLIC or connection.scope.get("method") == HttpMethod.OPTIONS:
            return
        try:
            principal = await self._identify(connection, last_known=not database)
            if principal.key_id is not None:
                wait_s = await self._rates.wait_of_key_s(principal.key_id)
                if wait_s:
                    raise _too_many("this key has made too many requests", wait_s)
            if not principal.may(need):
                raise _not_allowed(need, principal)
        except (Problem, DatabaseUnavailableError) as error:
            if isinstance(error, Problem):
                metrics.REFUSED_REQUESTS.labels(error.code).inc()
            await _discard_body(connection, self._body_max)
            raise
        connection.scope["auth"] = principal

    async def _identify(self, connection: Connection, *, last_known: bool) -> Principal:
        if not await self._required(last_known=last_known):
            return EVERYBODY
        try:
            key = _sent_key(connection)
            found = await self._find(key.key_id, last_known=last_known)
            stored = _checked(key, found)
        except _KeyProblem:
            # Only now: a good key passes, whoever else is at its address (behind a proxy, all are).
            address = connection.client.host if connection.client else ""
            wait_s = await self._rates.wait_of_address_s(address)
            if wait_s:
                raise _too_many(
                    "too many requests without a good key came from your address", wait_s
                ) from None
            await self._rates.count_refused(address)
            raise
        now = monotonic()
        if found is not None and now - found.used_at >= _NOTED_EVERY_S:
            found.used_at = now
            self._usage.note(stored.key_id)
        return stored.principal

    async def _required(self, *, last_known: bool) -> bool:
        if self._always:
            return True
        try:
            return await self._cache.keys_on()
        except DatabaseUnavailableError:
            known = self._cache.last_known_on()
            if last_known and known is not None:
                return known
            raise

    async def _find(self, key_id: str, *, last_known: bool) -> Believed[StoredKey] | None:
        try:
            return await self._cache.find(key_id)
        except DatabaseUnavailableError:
            known = self._cache.last_known(key_id)
            if last_known and known is not None:
                return known
            raise


async def _discard_body(connection: Connection, most: int) -> None:
    """Take what is still coming, for a while: a client that is cut off while sending reads no answer."""
    if not isinstance(connection, Request) or not {"content-length", "transfer-encoding"} & set(
        connection.headers
    ):
        return
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while size < most:
                message: Any = await connection.receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                size += len(message.get("body", b""))


class _KeyProblem(Problem):
    """A 401: no key, or none that is good."""

    def __init__(self, code: str, detail: str) -> None:
        challenge = "Bearer" if code == "missing_key" else 'Bearer error="invalid_token"'
        headers = {"WWW-Authenticate": challenge}
        super().__init__(401, code, detail, title="A good key is needed", headers=headers)


def _sent_key(connection: Connection) -> Key:
    """Read the key from the headers. Raises 401."""
    sent = set(connection.headers.getall("x-api-key", []))
    for line in connection.headers.getall("authorization", []):
        scheme, _, credentials = line.partition(" ")
        # Another scheme is for somebody before us, such as a proxy.
        if scheme.lower() == "bearer":
            sent.add(credentials.strip())
    if not sent:
        raise _KeyProblem("missing_key", f"this service takes no request without a key: {_SEND_KEY}")
    if len(sent) > 1:
        raise _KeyProblem("bad_key", "the request holds several keys that differ: send one")
    key = parse(sent.pop())
    if key is None:
        raise _bad_key()
    return key


def _bad_key() -> _KeyProblem:
    """Give the one answer to keys that are cut off, unknown or wrong: which it is would help a guesser."""
    return _KeyProblem("bad_key", f"the key is not one that this service knows: {_SEND_KEY}")


def _checked(key: Key, found: Believed[StoredKey] | None) -> StoredKey:
    """Hold a key against what is stored. Raises 401, which tells more only to who has the right secret."""
    stored = found.value if found else None
    if not key.matches(stored.secret_sha256 if stored else NOBODY_SHA256) or stored is None:
        raise _bad_key()
    if stored.revoked_at is not None:
        raise _KeyProblem("revoked_key", f"the key {stored.key_id} was revoked: {_SEND_KEY}")
    if stored.expired:
        raise _KeyProblem("expired_key", f"the time of the key {stored.key_id} is over: {_SEND_KEY}")
    return stored


def _not_allowed(need: str | None, principal: Principal) -> Problem:
    if need == SESSIONS:
        wanted = "the scope ingest, and is not bound to devices"
    elif need is None:
        wanted = "more than any key can have: this route has not been opened"
        log.get("access").error("route_without_need")
    else:
        wanted = f"the scope {need}"
    detail = f"the key {principal.key_id} may not do that: it takes a key with {wanted}"
    return Problem(403, "not_allowed", detail, title="The key is not good for this")


def _too_many(detail: str, wait_s: int) -> Problem:
    return Problem(429, "too_many_requests", detail, headers={"Retry-After": str(wait_s)})
