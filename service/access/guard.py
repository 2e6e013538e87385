"""The guard before every route: who asks, may they, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from litestar.connection import ASGIConnection, Request
from litestar.datastructures import Cookie
from litestar.enums import HttpMethod
from litestar.handlers.base import BaseRouteHandler

from service import lifecycle, log, metrics
from service.access.cache import Believed, KeyCache, LookUps
from service.access.credentials import KeyProblem, bad_key, check_key, check_sign_in, one_key, sent_keys
from service.access.rates import Rates
from service.access.sign_ins import SignIns
from service.access.store import KeyStore, StoredKey, StoredSignIn
from service.access.usage import Usage
from service.db import ReadPool
from service.errors import DatabaseUnavailableError
from service.loopback import is_loopback
from service.settings import Settings
from service.web.principal import EVERYBODY, PUBLIC, READ, SESSIONS, Principal
from service.web.problems import Problem

T = TypeVar("T")
Connection = ASGIConnection[Any, Any, Any, Any]
Credential = StoredKey | StoredSignIn
AnyCredential = TypeVar("AnyCredential", StoredKey, StoredSignIn)

_NOTED_EVERY_S: Final = 60.0
_DISCARD_S: Final = 5.0


class Asking(NamedTuple):
    """Whether keys are required, and the good key or sign-in that was shown; None where there was none."""

    required: bool
    shown: Credential | None


class Guard:
    """Keeps out who has no business here; as a guard of the framework it is called before each route.

    Keys are required once there was one, and whenever the service listens on more than loopback.
    """

    def __init__(self, settings: Settings, pool: ReadPool) -> None:
        self._always = settings.http_auth == "keys" or not is_loopback(settings.http_host)
        self._body_max = settings.http_max_body_bytes
        self._store = KeyStore(settings)
        self._keys = KeyCache(self._store, settings.key_cache_s)
        self._sign_ins = SignIns(self._store, settings)
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
            principal = EVERYBODY
            if await self._required(last_known=not database):
                principal = (await self._identify(connection, last_known=not database)).principal
            if not principal.may(need):
                raise _not_allowed(need, principal)
        except (Problem, DatabaseUnavailableError) as error:
            _tell(error)
            await _discard_body(connection, self._body_max)
            raise
        connection.scope["auth"] = principal

    async def still_admits(self, connection: Connection, need: str) -> bool:
        """Tell whether a request that was let in long ago, and goes on, still would be.

        It counts as no use and no request. While the database is away it goes by what was last known.
        """
        try:
            if not await self._required(last_known=True):
                return True
            shown: Credential = (await self._shown(connection, last_known=True)).value
            return shown.principal.may(need)
        except Problem:
            return False
        except DatabaseUnavailableError:
            return True

    async def who(self, connection: Connection) -> Asking:
        """Tell who asks, where nobody has to say; a sign-in that is over counts as nobody.

        Raises Problem 401 for a key that is not good, 429, and DatabaseUnavailableError.
        """
        required = await self._required(last_known=True)
        if not required or not (sent_keys(connection) or self._sign_ins.shown(connection)):
            return Asking(required, None)
        try:
            return Asking(required, await self._identify(connection, last_known=True))
        except Problem as error:
            if error.code == "signed_out":
                return Asking(required, None)
            _tell(error)
            raise

    async def sign_in(self, connection: Connection, text: str) -> Cookie:
        """Begin a sign-in with a key; give its cookie.

        Raises Problem 401, 403, 429, and DatabaseUnavailableError.
        """
        try:
            key = await self._used(await self._by_key(connection, {text}, last_known=False))
            if not key.principal.may(READ):
                raise _not_allowed(READ, key.principal)
            cookie = await self._sign_ins.begin(connection, key.key_id)
            if cookie is None:
                # It was good a moment ago.
                raise bad_key()
        except Problem as error:
            _tell(error)
            raise
        return cookie

    async def sign_out(self, connection: Connection) -> list[Cookie]:
        """End the sign-in whose cookie came; give what takes it from the browser.

        Raises DatabaseUnavailableError.
        """
        return await self._sign_ins.end(connection)

    async def _required(self, *, last_known: bool) -> bool:
        if self._always:
            return True
        try:
            return await self._keys.keys_on()
        except DatabaseUnavailableError:
            known = self._keys.last_known_on()
            if last_known and known is not None:
                return known
            raise

    async def _identify(self, connection: Connection, *, last_known: bool) -> Credential:
        found: Believed[Any] = await self._shown(connection, last_known=last_known)
        used: Credential = await self._used(found)
        return used

    async def _shown(self, connection: Connection, *, last_known: bool) -> Believed[Any]:
        """Give the good key or sign-in that a request shows. Raises 401, and 429 where most were bad."""
        sent = sent_keys(connection)
        # The head of what can be got comes as GET, too; see Edge.
        if not sent and connection.scope.get("method") == HttpMethod.GET:
            name = self._sign_ins.shown(connection)
            if name is not None:
                # Not counted against the address: every one ends some day, and none can be guessed.
                return check_sign_in(await _find(self._sign_ins.known, name, last_known=last_known))
        return await self._by_key(connection, sent, last_known=last_known)

    async def _by_key(
        self, connection: Connection, sent: Collection[str], *, last_known: bool
    ) -> Believed[StoredKey]:
        try:
            key = one_key(sent)
            return check_key(key, await _find(self._keys, key.key_id, last_known=last_known))
        except KeyProblem:
            # Only now: a good key passes, whoever else is at its address (behind a proxy, all are).
            address = connection.client.host if connection.client else ""
            wait_s = await self._rates.wait_of_address_s(address)
            if wait_s:
                raise _too_many(
                    "too many requests without a good key came from your address", wait_s
                ) from None
            await self._rates.count_refused(address)
            raise

    async def _used(self, found: Believed[AnyCredential]) -> AnyCredential:
        """Note the use of a key, shown or signed in with; raise 429 where that was one too many."""
        stored = found.value
        now = monotonic()
        if now - found.used_at >= _NOTED_EVERY_S:
            found.used_at = now
            self._usage.note(stored.key_id)
        wait_s = await self._rates.wait_of_key_s(stored.key_id)
        if wait_s:
            raise _too_many("this key has made too many requests", wait_s)
        return stored


async def _find(known: LookUps[T], name: str, *, last_known: bool) -> Believed[T] | None:
    try:
        return await known.find(name)
    except DatabaseUnavailableError:
        last = known.last_known(name)
        if last_known and last is not None:
            return last
        raise


def _tell(error: Exception) -> None:
    """Count a refusal by its code."""
    if isinstance(error, Problem):
        metrics.REFUSED_REQUESTS.labels(error.code).inc()


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
