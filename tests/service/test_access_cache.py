"""What a process remembers of keys: for how long, how much, and what happens while the database is away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from service import db
from service.access import cache as cache_module
from service.access.cache import KeyCache
from service.access.key import Key, make
from service.access.store import KeyStore
from service.errors import DatabaseUnavailableError
from service.settings import Settings
from tests.support.keys import bearer, make_key
from tests.support.servers import Postgres
from tests.support.strategies import Owner, as_json, meter, problem, serving
from tests.support.switches import shut

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

STATS: Final = "/v1/analytics/stats"


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[KeyStore]:
    """Give a store on the test's database."""
    opened = KeyStore(settings)
    yield opened
    await opened.close()


class Counting:
    """A store that counts what it is asked."""

    def __init__(self, store: KeyStore) -> None:
        self.asked: list[str] = []
        self.queries = 0
        self._store = store

    async def keys_on(self) -> bool:
        """Pass it on."""
        self.asked.append("on")
        return await self._store.keys_on()

    async def find(self, key_ids: list[str]) -> Any:
        """Pass it on."""
        self.asked += key_ids
        self.queries += 1
        return await self._store.find(key_ids)


async def test_one_look_up_serves_all(settings: Settings, store: KeyStore) -> None:
    """Many at once ask once; those who come soon after do not ask at all; later it is asked again."""
    key, counting = make_key(settings, "read"), Counting(store)
    cache = KeyCache(counting, 0.3)  # type: ignore[arg-type]
    found = await asyncio.gather(*(cache.find(key.key_id) for _ in range(50)))
    assert {one.value.key_id for one in found if one} == {key.key_id}
    await cache.find(key.key_id)
    assert counting.asked == [key.key_id]
    await asyncio.sleep(0.35)
    await asyncio.gather(*(cache.find(key.key_id) for _ in range(50)))
    assert counting.asked == [key.key_id] * 2


async def test_one_who_leaves_takes_nothing_from_the_others(settings: Settings, store: KeyStore) -> None:
    """A request that is given up while it waits does not end the look-up for those that wait with it."""
    key = make_key(settings, "read")
    cache = KeyCache(store, 60)
    first, second = (asyncio.create_task(cache.find(key.key_id)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None


class Slow(Counting):
    """One whose every look-up takes a while."""

    async def find(self, key_ids: list[str]) -> Any:
        """Pass it on, late."""
        await asyncio.sleep(0.1)
        return await super().find(key_ids)


async def test_thousands_of_keys_at_once(settings: Settings, owner: Owner) -> None:
    """However many devices send at the full minute, each gets through, and few queries serve them all."""
    await owner.execute(
        "insert into api_key (key_id, name, scopes, secret_sha256) "
        "select 'k' || lpad(n::text, 11, '0'), 'k', '{ingest}', sha256('') from generate_series(1, 3000) as n"
    )
    store = KeyStore(settings)
    try:
        counting = Slow(store)
        cache = KeyCache(counting, 60)  # type: ignore[arg-type]
        names = [f"k{number:011}" for number in range(1, 3001)]
        found = await asyncio.gather(*(cache.find(name) for name in names))
        assert [one.value.key_id for one in found if one] == names
        assert counting.queries == 3
    finally:
        await store.close()


async def test_waiting_for_others_is_no_sign_of_a_database_away(
    settings: Settings, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a query begins with it: those behind it are answered, on the same connection."""
    monkeypatch.setattr("service.access.store._QUERY_S", 1.0)
    key, store = make_key(settings, "read"), KeyStore(settings)
    try:
        assert await store.find([key.key_id]) != {}
        first = backend(postgres, database)
        run = store._line._run  # noqa: SLF001 - the same, but slow

        async def slow(*arguments: Any) -> Any:
            await asyncio.sleep(0.4)
            return await run(*arguments)

        monkeypatch.setattr(store._line, "_run", slow)  # noqa: SLF001
        answers = await asyncio.gather(*(store.find([key.key_id]) for _ in range(6)))
        assert all(answers)
        assert backend(postgres, database) == first
    finally:
        await store.close()


async def test_given_up_while_connecting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that comes about too late is closed, not kept."""
    monkeypatch.setattr("service.access.store._QUERY_S", 0.2)
    connect = db.writer_connection

    async def late(*arguments: Any) -> Any:
        connection = await connect(*arguments)
        await asyncio.sleep(0.5)
        late_ones.append(connection)
        return connection

    late_ones: list[Any] = []
    monkeypatch.setattr(db, "writer_connection", late)
    store = KeyStore(settings)
    with pytest.raises(DatabaseUnavailableError):
        await store.keys_on()
    async with asyncio.timeout(20):
        while not late_ones or not late_ones[0].closed:
            await asyncio.sleep(0.05)
    await store.close()


async def test_who_goes_on_using_a_key_does_not_wait(settings: Settings, store: KeyStore) -> None:
    """What is believed is read again before it is too old, in the background."""
    key, counting = make_key(settings, "read"), Counting(store)
    cache = KeyCache(counting, 4)  # type: ignore[arg-type]
    assert await cache.find(key.key_id) is not None
    known = cache.last_known(key.key_id)
    assert known is not None
    known.until -= 3
    assert await cache.find(key.key_id) is known
    async with asyncio.timeout(20):
        while cache.last_known(key.key_id) is known:
            await asyncio.sleep(0.01)
    assert counting.asked == [key.key_id] * 2


async def test_guesses_cost_few_queries(store: KeyStore) -> None:
    """Ids that no key has are looked up many at a time, however they come."""
    counting = Counting(store)
    cache = KeyCache(counting, 60)  # type: ignore[arg-type]
    began = time.monotonic()

    async def guess() -> None:
        for _ in range(20):
            assert await cache.find(make().key_id) is None

    await asyncio.gather(*(guess() for _ in range(50)))
    assert len(counting.asked) == 1000
    assert counting.queries <= 1 + (time.monotonic() - began) / 0.02


async def test_absence_is_remembered(store: KeyStore) -> None:
    """An id that no key has is asked for once, and so is whether there are keys."""
    counting = Counting(store)
    cache = KeyCache(counting, 60)  # type: ignore[arg-type]
    for _ in range(3):
        assert await cache.find("abcdefghijkl") is None
        assert not await cache.keys_on()
    assert counting.asked == ["abcdefghijkl", "on"]


async def test_that_there_are_keys_is_so_for_good(settings: Settings, store: KeyStore) -> None:
    """Once there was a key nobody asks again."""
    make_key(settings, "read")
    counting = Counting(store)
    cache = KeyCache(counting, 0)  # type: ignore[arg-type]
    assert [await cache.keys_on() for _ in range(5)] == [True] * 5
    assert counting.asked == ["on"]


async def test_made_up_ids_fill_no_memory(
    settings: Settings, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids that no key has push out each other, never a key; keys are bounded, too."""
    monkeypatch.setattr(cache_module, "_UNKNOWN_MAX", 10)
    monkeypatch.setattr(cache_module, "_KNOWN_MAX", 3)
    keys = [make_key(settings, "read") for _ in range(5)]
    cache = KeyCache(store, 60)
    for key in keys:
        await cache.find(key.key_id)
    for _ in range(100):
        await cache.find(make().key_id)
    assert (len(cache._known), len(cache._unknown)) == (3, 10)  # noqa: SLF001 - what it holds is the point
    assert [cache.last_known(key.key_id) is not None for key in keys] == [False, False, True, True, True]


def backend(postgres: Postgres, database: str) -> int:
    """Give the process that serves the connection of the keys."""
    with postgres.admin() as admin:
        found = admin.execute(
            "select pid from pg_stat_activity where application_name = 'fleetwatt keys' and datname = %s",
            (database,),
        ).fetchall()
    [[pid]] = found
    assert isinstance(pid, int)
    return pid


async def test_a_restarted_server_is_no_reason_to_fail(
    settings: Settings, postgres: Postgres, database: str, store: KeyStore
) -> None:
    """A connection that the server closed in between is opened again within the same look-up."""
    key = make_key(settings, "read")
    for _ in range(3):
        assert await store.find([key.key_id]) != {}
        with postgres.admin() as admin:
            admin.execute("select pg_terminate_backend(%s, 5000)", (backend(postgres, database),))
    assert await store.find([key.key_id]) != {}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Freeze a process: its sockets live, it does not answer."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_frozen_server_is_given_up(
    settings: Settings, postgres: Postgres, database: str, store: KeyStore
) -> None:
    """Look-ups end after some seconds, all of them; the next one has a connection of its own."""
    key = make_key(settings, "read")
    cache = KeyCache(store, 0)
    assert await cache.find(key.key_id) is not None
    with stopped(backend(postgres, database)):
        began = time.monotonic()
        asked = [cache.find(key.key_id), cache.find(key.key_id), cache.find(make().key_id), cache.keys_on()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DatabaseUnavailableError] * 4
        # Right after it nobody waits again.
        with pytest.raises(DatabaseUnavailableError):
            await cache.find(key.key_id)
        assert time.monotonic() - began < 15
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await cache.find(key.key_id) is not None
                except DatabaseUnavailableError:
                    await asyncio.sleep(0.1)
                else:
                    break


async def test_database_away(settings: Settings, postgres: Postgres, database: str) -> None:
    """What was read counts for its time; then 503 with Retry-After, but for the counters; then it is well."""
    key = make_key(settings, "admin")
    headers = bearer(key)
    async with serving(settings, key_cache_s=0.2) as client:
        assert (await client.get("/metrics", headers=headers)).status_code == 200
        with shut(postgres, database):
            await asyncio.sleep(0.3)
            for response in (
                await client.get(STATS, headers=headers),
                await client.post("/v1/telemetry", json=as_json(meter()), headers=headers),
                await client.get(STATS, headers=bearer(make())),
                await client.get("/metrics", headers=bearer(make())),
            ):
                problem(response, 503, "unavailable")
                assert int(response.headers["retry-after"]) > 0
            problem(await client.get(STATS), 401, "missing_key")
            problem(
                await client.get("/metrics", headers=bearer(Key(key.key_id, make().secret))), 401, "bad_key"
            )
            assert (await client.get("/metrics", headers=headers)).status_code == 200
        async with asyncio.timeout(30):
            while (response := await client.get(STATS, headers=headers)).status_code == 503:
                await asyncio.sleep(0.1)
        assert response.status_code == 200


async def test_nobody_knows_whether_there_are_keys(
    settings: Settings, postgres: Postgres, database: str
) -> None:
    """Started while the database is away, on loopback: nothing is told until keys can be asked for."""
    with shut(postgres, database):
        async with serving(settings) as client:
            problem(await client.get(STATS), 503, "unavailable")
            problem(await client.post("/v1/telemetry", json=as_json(meter())), 503, "unavailable")
            refused = await client.get("/metrics")
            problem(refused, 503, "unavailable")
            assert int(refused.headers["retry-after"]) > 0
            assert (await client.get("/health/live")).status_code == 200
        async with serving(settings, http_auth="keys") as client:
            problem(await client.get("/metrics"), 401, "missing_key")
            problem(await client.get("/metrics", headers=bearer(make())), 503, "unavailable")


async def test_keys_were_known_to_be_off(settings: Settings, postgres: Postgres, database: str) -> None:
    """Where it was known that there is no key, the counters can be read while the database is away."""
    async with serving(settings, key_cache_s=0.2) as client:
        assert (await client.get("/metrics")).status_code == 200
        with shut(postgres, database):
            await asyncio.sleep(0.3)
            problem(await client.get(STATS), 503, "unavailable")
            assert (await client.get("/metrics")).status_code == 200
