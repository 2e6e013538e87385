"""Sign-in of browsers: what the cookie is, what it opens, and when it ends."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from http.cookies import Morsel, SimpleCookie
from typing import Any, Final

import httpx
import msgspec
import pytest

from service.access.key import Key, make
from service.access.rates import REFUSED_A_MINUTE
from service.settings import Settings
from tests.support.keys import bearer, make_key, revoke_key
from tests.support.servers import Postgres
from tests.support.strategies import Owner, as_json, meter, problem, rows, serving
from tests.support.switches import shut

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

STATS: Final = "/v1/analytics/stats"
PATIENCE_S: Final = 20
NOBODY: Final = {"signedIn": False, "name": None, "expiresAt": None}
PAGE: Final = {"origin": "https://fleet.example", "host": "fleet.example"}


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Give settings by which what was read of a key or sign-in is believed for a moment only."""
    return msgspec.structs.replace(settings, key_cache_s=0.2)


async def sign_in(client: httpx.AsyncClient, key: Key, **headers: str) -> Morsel[str]:
    """Sign in; give the cookie, which the client keeps as a browser would."""
    response = await client.post("/v1/sign-in", json={"key": key.text}, headers=headers)
    assert (response.status_code, response.content) == (204, b""), response.text
    assert key.secret not in str(response.headers)
    [cookie] = SimpleCookie(response.headers["set-cookie"]).values()
    return cookie


async def becomes(client: httpx.AsyncClient, status: int) -> httpx.Response:
    """Ask again and again until the answer has a status."""
    async with asyncio.timeout(PATIENCE_S):
        while (response := await client.get(STATS)).status_code != status:
            await asyncio.sleep(0.05)
    return response


async def test_sign_in_and_out(settings: Settings, owner: Owner) -> None:
    """A key becomes a cookie that reads; signing out ends it, for copies, too. Only its hash is stored."""
    key = make_key(settings, "read")
    async with serving(settings) as client:
        problem(await client.get(STATS), 401, "missing_key")
        assert (await client.get("/v1/me")).json() == {"keysRequired": True, "scopes": [], **NOBODY}
        cookie = await sign_in(client, key)
        assert (cookie.key, cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (
            "fleetwatt", True, "strict", "/", "",
        )  # fmt: skip
        assert 11.9 * 3600 < int(cookie["max-age"]) <= 12 * 3600
        assert not cookie["domain"]
        assert (await client.get(STATS)).status_code == 200
        assert (await client.head(STATS)).status_code == 200
        known = (await client.get("/v1/me")).json()
        ends = datetime.fromisoformat(known.pop("expiresAt"))
        assert abs(ends - datetime.now(UTC) - timedelta(hours=12)) < timedelta(minutes=1)
        assert known == {"keysRequired": True, "signedIn": True, "name": "test", "scopes": ["read"]}
        [stored] = await rows(owner, "select * from sign_in")
        assert stored["token_sha256"] == hashlib.sha256(cookie.value.encode()).digest()
        assert (stored["key_id"], stored["expires_at"]) == (key.key_id, ends)
        copy = {"cookie": f"fleetwatt={cookie.value}"}
        out = await client.post("/v1/sign-out")
        assert (out.status_code, out.content) == (204, b"")
        assert "max-age=0" in out.headers["set-cookie"].lower()
        assert not client.cookies
        assert await rows(owner, "select * from sign_in") == []
        problem(await client.get(STATS), 401, "missing_key")
        told = problem(await client.get(STATS, headers=copy), 401, "signed_out")
        assert cookie.value not in str(told)
        assert (await client.get("/v1/me", headers=copy)).json()["signedIn"] is False
        assert (await client.post("/v1/sign-out")).status_code == 204
        assert (await client.post("/v1/sign-out", headers=copy)).status_code == 204


async def test_it_reads_and_nothing_else(settings: Settings) -> None:
    """Also of a key that may do everything: GET and HEAD of what `read` opens."""
    async with serving(settings) as client:
        await sign_in(client, make_key(settings, "admin", "ingest"))
        for path in (STATS, "/v1/sessions", "/v1/alerts", "/v1/analytics/vehicles/states", "/metrics"):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.get("/v1/me")).json()["scopes"] == ["read"]
        told = problem(await client.get("/v1/dead-letters"), 403, "not_allowed")
        assert "admin" in told["detail"]
        for method, path in (
            ("POST", "/v1/telemetry"),
            ("POST", "/v1/telemetry?atomic=true"),
            ("POST", "/v1/sessions"),
            ("PATCH", "/v1/sessions/s-1"),
            ("PUT", "/v1/vehicles/v-1/meter"),
            ("POST", "/v1/dead-letters/replay"),
        ):
            problem(await client.request(method, path, json=as_json(meter())), 401, "missing_key")


async def test_a_key_goes_before_the_cookie(settings: Settings) -> None:
    """Whoever sends a key is who it says, good or bad; the login of a proxy before us is no key."""
    reader, sender = make_key(settings, "read"), make_key(settings, "ingest")
    async with serving(settings) as client:
        await sign_in(client, reader)
        problem(await client.get(STATS, headers=bearer(sender)), 403, "not_allowed")
        problem(await client.get(STATS, headers=bearer(make())), 401, "bad_key")
        problem(await client.get(STATS, headers={"x-api-key": "fw_cut_off"}), 401, "bad_key")
        problem(await client.get("/v1/me", headers=bearer(make())), 401, "bad_key")
        told = (await client.get("/v1/me", headers=bearer(sender))).json()
        assert told == {"keysRequired": True, **NOBODY, "name": "test", "scopes": ["ingest"]}
        assert (await client.get(STATS, headers={"authorization": "Basic dTpw"})).status_code == 200


async def test_keys_that_sign_nobody_in(settings: Settings, owner: Owner) -> None:
    """Wrong, cut off, revoked, expired: 401 as elsewhere. One that may not read: 403. No cookie, no row."""
    good, revoked, ended = (make_key(settings, "read") for _ in range(3))
    revoke_key(settings, revoked)
    await owner.execute("update api_key set expires_at = now() where key_id = %s", (ended.key_id,))
    sender = make_key(settings, "ingest")
    async with serving(settings) as client:
        for text, status, code in (
            (make().text, 401, "bad_key"),
            (good.text[:-1], 401, "bad_key"),
            (Key(good.key_id, make().secret).text, 401, "bad_key"),
            ("", 401, "bad_key"),
            (revoked.text, 401, "revoked_key"),
            (ended.text, 401, "expired_key"),
            (sender.text, 403, "not_allowed"),
        ):
            response = await client.post("/v1/sign-in", json={"key": text})
            problem(response, status, code)
            assert "set-cookie" not in response.headers
        for body, code in (
            ({}, "missing"),
            ({"key": 1}, "bad_value"),
            ({"key": good.text, "x": 1}, "unknown_field"),
        ):
            problem(await client.post("/v1/sign-in", json=body), 400, code)
        problem(
            await client.post("/v1/sign-in", content=b"key=x", headers={"content-type": "text/plain"}), 415
        )
    assert await rows(owner, "select * from sign_in") == []


async def test_a_service_without_keys(settings: Settings) -> None:
    """There everybody reads, and no key is good."""
    async with serving(settings) as client:
        told = (await client.get("/v1/me")).json()
        assert told == {"keysRequired": False, **NOBODY, "scopes": ["ingest", "read", "admin"]}
        problem(await client.post("/v1/sign-in", json={"key": make().text}), 401, "bad_key")


async def test_guesses_count_against_the_address(settings: Settings) -> None:
    """At /v1/sign-in and /v1/me as everywhere; a good key still signs in. Cookies that are over do not."""
    key = make_key(settings, "read")
    over = {"cookie": "fleetwatt=" + "x" * 43}
    async with serving(settings) as client:
        for _ in range(REFUSED_A_MINUTE + 5):
            problem(await client.get(STATS, headers=over), 401, "signed_out")
        for _ in range(REFUSED_A_MINUTE):
            problem(await client.post("/v1/sign-in", json={"key": make().text}), 401, "bad_key")
        late = await client.post("/v1/sign-in", json={"key": make().text})
        problem(late, 429, "too_many_requests")
        assert int(late.headers["retry-after"]) >= 1
        problem(await client.get("/v1/me", headers=bearer(make())), 429, "too_many_requests")
        problem(await client.get(STATS), 429, "too_many_requests")
        await sign_in(client, key)
        assert (await client.get(STATS)).status_code == 200


async def test_it_counts_in_the_rate_of_its_key(settings: Settings) -> None:
    """Whether the key is sent or signed in with: it is one key."""
    key = make_key(settings, "read")
    async with serving(settings, http_rate=20) as client:
        await sign_in(client, key)
        answers = [await client.get("/metrics") for _ in range(200)]
        assert {answer.status_code for answer in answers} == {200, 429}


async def test_use_is_noted(settings: Settings, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at a dashboard uses the key."""
    monkeypatch.setattr("service.access.usage._EVERY_S", 0.1)
    key = make_key(settings, "read")
    async with serving(settings) as client:
        await sign_in(client, key)
    await owner.execute("update api_key set last_used_at = null")
    async with serving(settings, key_cache_s=60) as client, asyncio.timeout(PATIENCE_S):
        cookie = await sign_in(client, key)
        await owner.execute("update api_key set last_used_at = null")
        assert (await client.get(STATS, headers={"cookie": f"fleetwatt={cookie.value}"})).status_code == 200
        while (await rows(owner, "select last_used_at from api_key"))[0]["last_used_at"] is None:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["revoked", "expired", "deleted", "sign-in deleted"])
async def test_it_ends_with_its_key(quick: Settings, owner: Owner, how: str) -> None:
    """Within what is believed of keys; other sign-ins go on."""
    key, other = make_key(quick, "read"), make_key(quick, "read")
    async with serving(quick) as client:
        lasting = {"cookie": f"fleetwatt={(await sign_in(client, other)).value}"}
        await sign_in(client, key)
        assert (await client.get(STATS)).status_code == 200
        if how == "revoked":
            revoke_key(quick, key)
        else:
            statement = {
                "expired": "update api_key set expires_at = now() where key_id = %s",
                "deleted": "delete from api_key where key_id = %s",
                "sign-in deleted": "delete from sign_in where key_id = %s",
            }[how]
            await owner.execute(statement.encode(), (key.key_id,))
        problem(await becomes(client, 401), 401, "signed_out")
        assert (await client.get(STATS, headers=lasting)).status_code == 200


async def test_it_ends_by_itself(settings: Settings) -> None:
    """After its hours, or with the key if that is sooner: to the moment, whatever is remembered."""
    key = make_key(settings, "read", expires_at=datetime.now(UTC) + timedelta(seconds=2))
    lasting = make_key(settings, "read")
    async with serving(settings, key_cache_s=60) as client:
        cookie = await sign_in(client, key)
        assert int(cookie["max-age"]) <= 2
        copy = {"cookie": f"fleetwatt={cookie.value}"}
        assert (await client.get(STATS, headers=copy)).status_code == 200
        client.cookies.clear()
        async with asyncio.timeout(PATIENCE_S):
            while (response := await client.get(STATS, headers=copy)).status_code == 200:
                await asyncio.sleep(0.05)
        problem(response, 401, "signed_out")
    async with serving(settings, key_cache_s=60, sign_in_hours=1 / 3600) as client:
        copy = {"cookie": f"fleetwatt={(await sign_in(client, lasting)).value}"}
        client.cookies.clear()
        async with asyncio.timeout(PATIENCE_S):
            while (response := await client.get(STATS, headers=copy)).status_code == 200:
                await asyncio.sleep(0.05)
        problem(response, 401, "signed_out")


async def test_several_processes(quick: Settings) -> None:
    """Each knows sign-ins that began at another one, and soon those that ended there."""
    key = make_key(quick, "read")
    async with serving(quick) as one, serving(quick) as other:
        cookie = await sign_in(one, key)
        other.cookies.set("fleetwatt", cookie.value)
        assert (await other.get(STATS)).status_code == 200
        assert (await one.post("/v1/sign-out")).status_code == 204
        problem(await one.get(STATS, headers={"cookie": f"fleetwatt={cookie.value}"}), 401, "signed_out")
        problem(await becomes(other, 401), 401, "signed_out")


async def test_over_tls(settings: Settings) -> None:
    """Where the browser speaks TLS, to us or to a proxy, the cookie is for TLS and this host only."""
    key = make_key(settings, "read")
    async with serving(settings, http_hosts="fleet.example") as client:
        cookie = await sign_in(client, key, **PAGE)
        assert (cookie.key, cookie["secure"], cookie["path"]) == ("__Host-fleetwatt", True, "/")
        shown = {"cookie": f"__Host-fleetwatt={cookie.value}; other=1"}
        assert (await client.get(STATS, headers=shown)).status_code == 200
        out = await client.post("/v1/sign-out", headers={**shown, **PAGE})
        [gone] = SimpleCookie(out.headers["set-cookie"]).values()
        assert (gone.key, gone["max-age"], gone["secure"]) == ("__Host-fleetwatt", "0", True)
    async with serving(settings, http_tls_cert_file="cert.pem") as client:
        cookie = await sign_in(client, key)
        assert (cookie.key, cookie["secure"]) == ("__Host-fleetwatt", True)
        # Without the prefix anybody who is at the domain, or between, could have set it.
        planted = {"cookie": f"fleetwatt={cookie.value}"}
        problem(await client.get(STATS, headers=planted), 401, "missing_key")


async def test_pages_of_others(settings: Settings, owner: Owner) -> None:
    """They can neither sign a browser in nor out, nor have its cookie sent; nor may a form do it."""
    key = make_key(settings, "read")
    elsewhere = {"origin": "https://evil.example"}
    async with serving(settings) as client:
        await sign_in(client, key)
        for path in ("/v1/sign-in", "/v1/sign-out"):
            response = await client.post(path, json={"key": key.text}, headers=elsewhere)
            problem(response, 403, "cross_origin")
            assert "set-cookie" not in response.headers
        assert (await client.get(STATS)).status_code == 200
    assert len(await rows(owner, "select * from sign_in")) == 1


@pytest.mark.parametrize(
    "cookie",
    [
        b"fleetwatt",
        b"fleetwatt=",
        b"fleetwatt=%00",
        b"fleetwatt=\xff\xfe",
        b'fleetwatt="a;b=\\',
        b";;=;",
        b"=" * 9000,
    ],
)
async def test_odd_cookies(settings: Settings, cookie: bytes) -> None:
    """Whatever is no cookie of ours is as if it were not there."""
    make_key(settings, "read")
    async with serving(settings) as client:
        problem(await client.get(STATS, headers={b"cookie": cookie}), 401, "missing_key")
        assert (await client.get("/v1/me", headers={b"cookie": cookie})).json()["signedIn"] is False
        assert (await client.post("/v1/sign-out", headers={b"cookie": cookie})).status_code == 204


async def test_database_away(quick: Settings, postgres: Postgres, database: str) -> None:
    """Nobody signs in or out; what was known counts where it does for keys: the counters, and who asks."""
    key = make_key(quick, "read")
    async with serving(quick) as client:
        await sign_in(client, key)
        assert (await client.get("/metrics")).status_code == 200
        with shut(postgres, database):
            await asyncio.sleep(0.3)
            for response in (
                await client.get(STATS),
                await client.post("/v1/sign-in", json={"key": key.text}),
                await client.post("/v1/sign-out"),
                await client.get("/v1/me", headers={"cookie": "fleetwatt=" + "x" * 43}),
            ):
                problem(response, 503, "unavailable")
                assert int(response.headers["retry-after"]) > 0
            assert client.cookies
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/v1/me")).json()["signedIn"] is True
        await becomes(client, 200)
        assert (await client.post("/v1/sign-out")).status_code == 204


async def test_begin_in_the_database(settings: Settings, owner: Owner) -> None:
    """Those that are over go with the next one; a key has 1,000; hours are bounded; once is enough."""
    key, other, sender = (make_key(settings, scope) for scope in ("read", "admin", "ingest"))

    async def begin(number: int, of: Key, hours: float) -> Any:
        parameters = {"token": number.to_bytes(32), "key": of.key_id, "hours": hours}
        done = await owner.execute("select begin_sign_in(%(token)s, %(key)s, %(hours)s) as ends", parameters)
        [row] = await done.fetchall()
        return row["ends"]

    assert await begin(1, sender, 1) is None
    assert await begin(1, make(), 1) is None
    first = await begin(1, key, 1)
    assert await begin(1, key, 5) == first
    assert await begin(1, other, 5) is None
    assert await begin(2, other, 1e9) - datetime.now(UTC) < timedelta(days=31, minutes=1)
    await begin(3, other, -1)
    await begin(4, other, 1)
    assert [row["n"] for row in await rows(owner, "select get_byte(token_sha256, 31) as n from sign_in")] == [
        1,
        2,
        4,
    ]
    await owner.execute(
        "insert into sign_in "
        "select sha256(n::text::bytea), %s, now() - n * interval '1 second', now() + interval '1 hour' "
        "from generate_series(1, 1200) as n",
        (key.key_id,),
    )
    await begin(5, key, 1)
    [counted] = await rows(
        owner,
        "select count(*) as n, bool_or(token_sha256 = sha256('998')) as young, "
        "bool_or(token_sha256 = sha256('1000')) as old from sign_in "
        "where key_id = (select o.key_id from sign_in as o where o.token_sha256 = sha256('1'))",
    )
    assert counted == {"n": 1000, "young": True, "old": False}


async def test_begun_at_once(settings: Settings, owner: Owner) -> None:
    """Many browsers at the same time, beside sign-ins that are over: all get in, and what is over is gone."""
    keys = [make_key(settings, "read") for _ in range(3)]
    await owner.execute(
        "insert into sign_in "
        "select sha256(n::text::bytea), %s, now() - interval '2 hours', now() - interval '1 hour' "
        "from generate_series(1, 500) as n",
        (keys[0].key_id,),
    )
    async with serving(settings) as one, serving(settings) as other:
        await asyncio.gather(*(sign_in(client, key) for client in (one, other) for key in keys * 5))
    assert len(await rows(owner, "select * from sign_in")) == 30
