"""API keys over HTTP: who gets in, who does not, and what each is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx
import msgspec
import pytest

from service.access.key import Key, make
from service.access.rates import REFUSED_A_MINUTE
from service.settings import Settings
from tests.support.keys import bearer, make_key, revoke_key
from tests.support.strategies import Owner, as_json, meter, problem, rows, serving

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

STATS: Final = "/v1/analytics/stats"
TELEMETRY: Final = "/v1/telemetry"
SESSION: Final = {"vehicleId": "v-1", "meterId": "m-1", "startedAt": "2026-01-31T12:00:00Z"}
PATIENCE_S: Final = 20


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Give settings by which what was read of a key is believed for a moment only."""
    return msgspec.structs.replace(settings, key_cache_s=0.2)


async def becomes(
    client: httpx.AsyncClient, status: int, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Ask again and again until the answer has a status."""
    async with asyncio.timeout(PATIENCE_S):
        while (response := await client.get(STATS, headers=headers)).status_code != status:
            await asyncio.sleep(0.05)
    return response


async def test_open_on_loopback_until_the_first_key(quick: Settings) -> None:
    """Without a key there is none to ask for; the first one closes the running service, for good."""
    async with serving(quick) as client:
        assert (await client.get(STATS)).status_code == 200
        assert (await client.get(STATS, headers=bearer(make()))).status_code == 200
        assert (await client.post(TELEMETRY, json=as_json(meter()))).status_code == 201
        key = make_key(quick, "read")
        problem(await becomes(client, 401), 401, "missing_key")
        assert (await client.get(STATS, headers=bearer(key))).status_code == 200
        revoke_key(quick, key)
        problem(await becomes(client, 401, bearer(key)), 401, "revoked_key")
        problem(await client.get(STATS), 401, "missing_key")
    async with serving(quick) as client:
        problem(await client.get(STATS), 401, "missing_key")


@pytest.mark.parametrize("change", [{"http_auth": "keys"}, {"http_host": "0.0.0.0"}, {"http_host": "::"}])  # noqa: S104
async def test_keys_without_any(settings: Settings, change: dict[str, str]) -> None:
    """Where a setting asks for keys, or the service can be reached from elsewhere, no key means nobody."""
    async with serving(settings, **change) as client:
        problem(await client.get(STATS), 401, "missing_key")
        for path in (
            "/",
            "/health",
            "/health/live",
            "/health/ready",
            "/api",
            "/api/openapi.json",
            "/api/start.js",
        ):
            assert (await client.get(path)).status_code in {200, 302}, path
        problem(await client.get("/metrics"), 401, "missing_key")
        key = make_key(settings, "read")
        assert (await client.get("/metrics", headers=bearer(key))).status_code == 200


async def test_ways_to_send_a_key(settings: Settings) -> None:
    """As a bearer or in a header of its own, the same one in both; a proxy's own login is not ours."""
    key, other = make_key(settings, "read"), make_key(settings, "read")
    login = ("authorization", "Basic dTpw")
    good = [
        [("Authorization", f"Bearer {key.text}")],
        [("authorization", f"bearer  {key.text}")],
        [("X-API-Key", key.text)],
        [("authorization", f"Bearer {key.text}"), ("x-api-key", key.text)],
        [login, ("x-api-key", key.text)],
    ]
    bad = [
        ([], "missing_key"),
        ([login], "missing_key"),
        ([("authorization", key.text)], "missing_key"),
        ([("authorization", "Bearer")], "bad_key"),
        ([("x-api-key", "")], "bad_key"),
        ([("authorization", f"Bearer {key.text}"), ("x-api-key", other.text)], "bad_key"),
        ([("authorization", f"Bearer {key.text}"), ("authorization", f"Bearer {other.text}")], "bad_key"),
    ]
    async with serving(settings) as client:
        for headers in good:
            assert (await client.get(STATS, headers=headers)).status_code == 200, headers
        for headers, code in bad:
            response = await client.get(STATS, headers=headers)
            told = problem(response, 401, code)
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert key.secret not in str(told)


async def test_keys_that_are_not_good(settings: Settings, owner: Owner) -> None:
    """Unknown, cut off, wrong: one answer. Expired, revoked: told only to who knows the secret."""
    ended = make_key(settings, "admin", expires_at=datetime.now(UTC) + timedelta(hours=1))
    await owner.execute(
        "update api_key set expires_at = now() - interval '1 second' where key_id = %s", (ended.key_id,)
    )
    revoked, good = make_key(settings, "admin"), make_key(settings, "admin")
    revoke_key(settings, revoked)
    wrong = make()
    async with serving(settings) as client:
        told = [
            problem(await client.get(STATS, headers=bearer(text)), 401, "bad_key")
            for text in (
                wrong.text,
                good.text[:-1],
                good.text + "x",
                good.text.upper(),
                Key(good.key_id, wrong.secret).text,
                Key(revoked.key_id, wrong.secret).text,
                Key(ended.key_id, wrong.secret).text,
                "fw_" + "'" * 12 + "_" + "x" * 43,
            )
        ]
        odd = {b"authorization": b"Bearer \xe9\xff" + b"x" * 50}
        told.append(problem(await client.get(STATS, headers=odd), 401, "bad_key"))
        assert all(one == told[0] for one in told)
        problem(await client.get(STATS, headers=bearer(ended)), 401, "expired_key")
        problem(await client.get(STATS, headers=bearer(revoked)), 401, "revoked_key")
        assert (await client.get(STATS, headers=bearer(good))).status_code == 200


async def test_a_key_ends_while_it_is_used(settings: Settings) -> None:
    """The end is kept to the moment, whatever is remembered of the key."""
    key = make_key(settings, "read", expires_at=datetime.now(UTC) + timedelta(seconds=2))
    async with serving(settings, key_cache_s=60) as client:
        assert (await client.get(STATS, headers=bearer(key))).status_code == 200
        problem(await becomes(client, 401, bearer(key)), 401, "expired_key")


async def test_scopes(settings: Settings) -> None:
    """Each key does what it was made for; else 403 names the scope that it takes."""
    ingest, read = make_key(settings, "ingest"), make_key(settings, "read")
    both, admin = make_key(settings, "ingest", "read"), make_key(settings, "admin")
    async with serving(settings) as client:
        for key, statuses in (
            (ingest, (201, 403, 201, 403, 403)),
            (read, (403, 200, 403, 200, 200)),
            (both, (201, 200, 200, 200, 200)),
            (admin, (201, 200, 200, 200, 200)),
        ):
            answers = (
                await client.post(TELEMETRY, json=as_json(meter()), headers=bearer(key)),
                await client.get(STATS, headers=bearer(key)),
                await client.post("/v1/sessions", json=SESSION, headers=bearer(key)),
                await client.get("/v1/sessions", headers=bearer(key)),
                await client.get("/metrics", headers=bearer(key)),
            )
            assert tuple(answer.status_code for answer in answers) == statuses
        refused = await client.get(STATS, headers=bearer(ingest))
        assert "scope read" in problem(refused, 403, "not_allowed")["detail"]
        refused = await client.post(TELEMETRY, content=b"", headers=bearer(read))
        assert "scope ingest" in problem(refused, 403, "not_allowed")["detail"]


async def test_a_bound_key_writes_no_sessions(settings: Settings) -> None:
    """Whose energy it is, is not a device's to say; nor is anything that other scopes open."""
    key = make_key(settings, "ingest", meters=("m-1",), vehicles=("v-1",))
    async with serving(settings) as client:
        for method, path in (
            ("POST", "/v1/sessions"),
            ("PATCH", "/v1/sessions/s-1"),
            ("PUT", "/v1/vehicles/v-1/meter"),
        ):
            refused = await client.request(method, path, json=SESSION, headers=bearer(key))
            assert "bound" in problem(refused, 403, "not_allowed")["detail"]


async def test_other_methods_tell_nothing(settings: Settings) -> None:
    """OPTIONS, wrong methods and unknown paths answer as ever; HEAD needs what GET needs."""
    key = make_key(settings, "read")
    async with serving(settings) as client:
        assert (await client.options(STATS)).status_code == 204
        problem(await client.delete(STATS), 405)
        problem(await client.get("/nowhere"), 404)
        refused = await client.head(STATS)
        assert (refused.status_code, refused.content) == (401, b"")
        assert (await client.head(STATS, headers=bearer(key))).status_code == 200


async def test_rate_of_a_key(settings: Settings) -> None:
    """Past its rate a key is told when to come back; others are not concerned, and it is let in again."""
    one, other = make_key(settings, "read"), make_key(settings, "read")
    async with serving(settings, http_rate=20) as client:
        answers = [await client.get("/metrics", headers=bearer(one)) for _ in range(200)]
        assert {answer.status_code for answer in answers} == {200, 429}
        late = next(answer for answer in answers if answer.status_code == 429)
        problem(late, 429, "too_many_requests")
        assert int(late.headers["retry-after"]) >= 1
        assert (await client.get("/metrics", headers=bearer(other))).status_code == 200
        await becomes(client, 200, bearer(one))


@pytest.mark.parametrize("sent", ["guesses", "revoked", "nothing"])
async def test_who_is_refused_too_often(settings: Settings, sent: str) -> None:
    """Past so many refusals an address gets 429 for whatever is not good; each good key of it passes.

    Behind a proxy, or in a browser that shows some page, others send from the same address.
    """
    good, late, gone = (make_key(settings, "read") for _ in range(3))
    revoke_key(settings, gone)
    async with serving(settings, key_cache_s=0) as client:
        assert (await client.get(STATS, headers=bearer(good))).status_code == 200
        answers = []
        for _ in range(REFUSED_A_MINUTE + 5):
            headers = {"guesses": bearer(make()), "revoked": bearer(gone), "nothing": {}}[sent]
            answers.append(await client.get(STATS, headers=headers))
        assert answers[0].status_code == 401
        problem(answers[-1], 429, "too_many_requests")
        assert int(answers[-1].headers["retry-after"]) >= 1
        for headers in ({}, {"X-API-Key": "fw_cut_off"}, bearer(make()), bearer(gone)):
            problem(await client.get(STATS, headers=headers), 429, "too_many_requests")
        for key in (good, late):
            assert (await client.get(STATS, headers=bearer(key))).status_code == 200


async def test_many_devices_at_the_full_minute(settings: Settings, owner: Owner) -> None:
    """Each sends with a key of its own that this process has not seen yet: all of them get through."""
    secret = make().secret
    await owner.execute(
        "insert into api_key (key_id, name, scopes, secret_sha256) "
        "select 'k' || lpad(n::text, 11, '0'), 'k', '{read}', sha256(%s::bytea) "
        "from generate_series(1, 1000) as n",
        (secret.encode(),),
    )
    async with serving(settings) as client:
        keys = [Key(f"k{number:011}", secret) for number in range(1, 1001)]
        asked = (client.get("/metrics", headers=bearer(key)) for key in keys)
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_use_is_noted(settings: Settings, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a key was last used stands in its row some seconds later, and of others nothing."""
    monkeypatch.setattr("service.access.usage._EVERY_S", 0.1)
    used, wrong, idle = (make_key(settings, "read") for _ in range(3))
    async with serving(settings) as client, asyncio.timeout(PATIENCE_S):
        assert (await client.get(STATS, headers=bearer(used))).status_code == 200
        await client.get(STATS, headers=bearer(Key(wrong.key_id, used.secret)))
        found: dict[str, datetime | None] = {}
        while found.get(used.key_id) is None:
            await asyncio.sleep(0.05)
            found = {row["key_id"]: row["last_used_at"] for row in await rows(owner, "select * from api_key")}
        assert (found[wrong.key_id], found[idle.key_id]) == (None, None)
        # Within a minute it is not written again.
        for _ in range(5):
            await client.get(STATS, headers=bearer(used))
            await asyncio.sleep(0.1)
        [row] = await rows(owner, f"select last_used_at from api_key where key_id = '{used.key_id}'")  # noqa: S608
        assert row["last_used_at"] == found[used.key_id]


async def test_use_that_cannot_be_noted(
    settings: Settings, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests do not wait for it and do not fail by it."""
    monkeypatch.setattr("service.access.usage._EVERY_S", 0.05)
    await owner.execute("revoke update (last_used_at) on api_key from fleetwatt_service")
    key = make_key(settings, "read")
    async with serving(settings) as client:
        for _ in range(5):
            assert (await client.get(STATS, headers=bearer(key))).status_code == 200
            await asyncio.sleep(0.05)
        async with owner.transaction():
            await owner.execute("select from api_key for update")
            assert (await client.get(STATS, headers=bearer(key))).status_code == 200
