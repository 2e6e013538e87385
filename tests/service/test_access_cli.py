"""`fleetwatt key`, and `fleetwatt serve` on addresses that others can reach: real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from service.access.key import make, parse
from service.settings import PREFIX, Settings
from tests.support import servers
from tests.support.keys import bearer, make_key, revoke_key
from tests.support.serving import served

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

EVERYWHERE: Final = "0.0.0.0"  # noqa: S104
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fleetwatt(settings: Settings, tmp_path: Path) -> Command:
    """Run the command on the test's database, and on no engine that may run here."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        chosen = {
            "MIGRATE_DATABASE_URL": settings.migrate_database_url,
            "DATABASE_URL": settings.database_url,
            "DATA_DIR": str(tmp_path / "none"),
            **variables,
        }
        environment |= {PREFIX + name: value for name, value in chosen.items()}
        return subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            env=environment,
        )

    return run


def listed(fleetwatt: Command) -> list[dict[str, Any]]:
    """Give what `key list` tells to programs."""
    result = fleetwatt("key", "list", "--json")
    assert result.returncode == 0, result.stderr
    keys: list[dict[str, Any]] = json.loads(result.stdout)["keys"]
    return keys


def test_a_key_from_its_birth_to_its_end(fleetwatt: Command) -> None:
    """Made and shown once, listed without its secret, revoked, and revoked again without harm."""
    made = fleetwatt(
        *("key", "create", "--name", "gate [7]", "--scope", "ingest", "--scope", "read", "--scope", "ingest"),
        *("--expires", "90d", "--meter", "m-2", "--meter", "m-1", "--vehicle", "v-1"),
    )
    assert made.returncode == 0, made.stderr
    key = parse(made.stdout.removesuffix("\n"))
    assert key is not None
    assert key.secret not in made.stderr
    assert "first one" in made.stderr
    [told] = listed(fleetwatt)
    assert (told["keyId"], told["name"], told["scopes"]) == (key.key_id, "gate [7]", ["ingest", "read"])
    assert (told["meterIds"], told["vehicleIds"]) == (["m-1", "m-2"], ["v-1"])
    assert (told["state"], told["lastUsedAt"], told["revokedAt"]) == ("active", None, None)
    lasts = datetime.fromisoformat(told["expiresAt"]) - datetime.fromisoformat(told["createdAt"])
    assert abs(lasts - timedelta(days=90)) < timedelta(minutes=2)
    for _ in range(2):
        ended = fleetwatt("key", "revoke", key.key_id)
        assert (ended.returncode, key.key_id in ended.stdout) == (0, True), ended.stderr
    assert "was revoked before" in ended.stdout
    shown = fleetwatt("key", "list").stdout
    assert key.key_id in shown
    assert "gate [7]" in shown
    assert "meter m-1, meter m-2, vehicle v-1" in shown
    assert "revoked" in shown
    assert key.secret not in shown + json.dumps(listed(fleetwatt))


def test_as_json_and_without_an_end(fleetwatt: Command) -> None:
    """For programs one line of JSON with the key; only the very first key is said to be that."""
    first, second = (
        json.loads(fleetwatt("key", "create", "--name", "n", "--scope", "admin", "--json").stdout)
        for _ in range(2)
    )
    assert (first["first"], second["first"], first["expiresAt"]) == (True, False, None)
    assert parse(first["key"]) != parse(second["key"])
    assert [key["keyId"] for key in listed(fleetwatt)] == [first["keyId"], second["keyId"]]
    assert [key["meterIds"] for key in listed(fleetwatt)] == [None, None]


def test_a_key_from_a_file(fleetwatt: Command, tmp_path: Path) -> None:
    """A key that was made elsewhere is stored once, however often, and never shown; nothing else is a key."""
    key, file = make(), tmp_path / "key"
    file.write_text(f"{key.text}\n")
    create = ("key", "create", "--scope", "read", "--key-file", str(file))
    for _ in range(2):
        made = fleetwatt(*create)
        assert made.returncode == 0, made.stderr
        assert key.key_id in made.stdout
        assert key.secret not in made.stdout + made.stderr
    assert [(key["keyId"], key["state"]) for key in listed(fleetwatt)] == [(key.key_id, "active")]
    # What was revoked stays so, whatever file still holds it.
    assert fleetwatt("key", "revoke", key.key_id).returncode == 0
    assert fleetwatt(*create).returncode == 0
    assert [key["state"] for key in listed(fleetwatt)] == ["revoked"]
    for text, says in (
        (make()._replace(key_id=key.key_id).text, "another key with the id"),
        ("fw_nothing", "holds no key"),
        (f"{key.text}\n{key.text}", "one line"),
    ):
        file.write_text(text)
        refused = fleetwatt(*create)
        assert (refused.returncode, says in refused.stderr) == (1, True), refused.stderr


def test_without_a_name(fleetwatt: Command) -> None:
    """A key is called by its scopes where nobody says what it is for."""
    made = fleetwatt("key", "create", "--scope", "read", "--scope", "ingest")
    assert made.returncode == 0, made.stderr
    assert [key["name"] for key in listed(fleetwatt)] == ["ingest, read"]


def test_until_a_moment(fleetwatt: Command, settings: Settings) -> None:
    """The end may be a time with a zone, and what is over is listed as expired."""
    moment = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    made = fleetwatt("key", "create", "--name", "n", "--scope", "read", "--expires", moment.isoformat())
    assert made.returncode == 0, made.stderr
    [told] = listed(fleetwatt)
    assert (datetime.fromisoformat(told["expiresAt"]), told["state"]) == (moment, "active")
    with psycopg.connect(settings.migrate_database_url) as owner:
        owner.execute("update api_key set expires_at = now()")
    assert [key["state"] for key in listed(fleetwatt)] == ["expired"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--expires", "0d"], "is over already"),
        (["--expires", "30"], "is not a duration with its unit"),
        (["--expires", "-5d"], "is not a duration"),
        (["--expires", "soon"], "is not a duration"),
        (["--expires", "2020-01-01T00:00:00Z"], "is over already"),
        (["--expires", "2999-01-01"], "is not an RFC 3339"),
        (["--expires", "2999-01-01T00:00:00"], "is not an RFC 3339"),
        (["--expires", "2999-01-01T00:00:00Z"], "100 years"),
        (["--expires", "9" * 400 + "d"], "100 years"),
        (["--meter", "m 1"], "1 to 64 characters"),
        (["--vehicle", ""], "1 to 64 characters"),
        (["--meter", "m" * 65], "1 to 64 characters"),
        (["--name", ""], "1 to 100"),
        (["--name", "a\nb"], "one line"),
        (["--name", "a" * 101], "1 to 100"),
        (["--scope", "write"], "write"),
        (["--scope", "admin", "--meter", "m-1"], "--scope ingest"),
    ],
)
def test_what_is_refused(fleetwatt: Command, edition: str, wrong: list[str], says: str) -> None:
    """Mistakes are named, with exit code 2, and nothing is made."""
    if edition != "apache":
        pytest.skip("the database is not asked")
    result = fleetwatt("key", "create", "--name", "n", "--scope", "ingest", *wrong)
    assert (result.returncode, result.stdout) == (2, "")
    words = " ".join(result.stderr.replace("│", " ").split())
    assert says in words, words


def test_devices_go_with_ingest(fleetwatt: Command, settings: Settings) -> None:
    """A key that only reads cannot be bound, neither by the command nor in the table."""
    result = fleetwatt("key", "create", "--name", "n", "--scope", "read", "--meter", "m-1")
    assert (result.returncode, result.stdout) == (2, "")
    for scopes in ("read", "admin"):
        with pytest.raises(psycopg.errors.CheckViolation):
            make_key(settings, scopes, meters=("m-1",))


def test_revoking_what_is_none(fleetwatt: Command) -> None:
    """Unknown ids are said to be so; a whole key given by mistake is not repeated."""
    unknown = fleetwatt("key", "revoke", "abcdefghijkl")
    assert (unknown.returncode, "there is no key abcdefghijkl" in unknown.stderr) == (1, True)
    key = make()
    whole = fleetwatt("key", "revoke", key.text)
    assert (whole.returncode, "12 characters" in whole.stderr) == (1, True)
    assert key.secret not in whole.stderr + whole.stdout


def test_who_may_make_keys(fleetwatt: Command, settings: Settings) -> None:
    """Not the service's own role; and a database that is away, or none, is said to be that."""
    make_one = ("key", "create", "--name", "n", "--scope", "admin")
    for variables, says in (
        ({"MIGRATE_DATABASE_URL": settings.database_url}, "this role may not make keys"),
        ({"MIGRATE_DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "does not answer"),
        ({"MIGRATE_DATABASE_URL": "", "DATABASE_URL": ""}, "no database"),
    ):
        result = fleetwatt(*make_one, **variables)
        assert (result.returncode, result.stdout, says in result.stderr) == (1, "", True), result.stderr
    with psycopg.connect(settings.database_url, autocommit=True) as service:
        for statement in ("insert into api_key default values", "delete from api_key", "truncate api_key",
                          "update api_key set revoked_at = null"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute(statement.encode())


def test_serving_others_needs_a_key(fleetwatt: Command, settings: Settings) -> None:
    """Without a key that works the service does not start on another address, and says what to run."""
    port = str(servers.free_port())

    def refused() -> str:
        result = fleetwatt("serve", HTTP_HOST=EVERYWHERE, HTTP_PORT=port)
        assert result.returncode == 1, result.stderr
        return result.stderr

    assert "fleetwatt key create" in refused()
    revoke_key(settings, make_key(settings, "admin"))
    assert "no key works now" in refused()


def test_serving_others_needs_a_schema(fleetwatt: Command, postgres: servers.Postgres) -> None:
    """A database without tables has no keys either: the words say to migrate first."""
    with postgres.database(empty=True) as name:
        url = postgres.url("fleetwatt_owner", name)
        result = fleetwatt("serve", HTTP_HOST=EVERYWHERE, DATABASE_URL=url)
        assert (result.returncode, "fleetwatt migrate" in result.stderr) == (1, True), result.stderr
        result = fleetwatt("key", "list", MIGRATE_DATABASE_URL=url)
        assert (result.returncode, "fleetwatt migrate" in result.stderr) == (1, True), result.stderr


async def test_serving_others_with_a_key(settings: Settings, tmp_path: Path) -> None:
    """With a key it starts and asks for it, also on loopback; a large request without one gets its answer."""
    key = make_key(settings, "ingest", "read")
    async with served(settings, tmp_path, HTTP_HOST=EVERYWHERE) as service:
        assert (await service.client.get("/v1/analytics/stats")).status_code == 401
        ok = await service.client.get("/v1/analytics/stats", headers=bearer(key))
        assert ok.status_code == 200
        reading = {"meterId": "m-1", "kwhConsumedAc": 1, "voltage": 230, "timestamp": "2026-01-31T12:00:00Z"}
        large = await service.client.post("/v1/telemetry", json=[reading] * 40_000)
        assert large.status_code == 401
        stored = await service.client.post("/v1/telemetry", json=reading, headers=bearer(key))
        assert stored.status_code == 201
        assert key.secret not in service.log


def test_serving_others_while_the_database_is_away(tmp_path: Path) -> None:
    """It starts, and takes nothing until keys can be checked."""
    port = servers.free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | {
        "FLEETWATT_DATABASE_URL": f"postgresql://127.0.0.1:{servers.free_port()}/none",
        "FLEETWATT_HTTP_HOST": EVERYWHERE,
        "FLEETWATT_HTTP_PORT": str(port),
    }
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], env=environment, stdout=log, stderr=log
        )
    try:
        servers.wait_for_port(port, tmp_path / "log")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client:
            assert (client.get("/health/live")).status_code == 200
            assert (client.get("/v1/analytics/stats")).status_code == 401
            refused = client.get("/v1/analytics/stats", headers=bearer(make()))
            assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
    finally:
        service.terminate()
        service.wait(30)


def test_the_simulator_shows_its_key(fleetwatt: Command) -> None:
    """Its key is sent; without one, or with half of one, it fails with clear words and never shows it."""
    half = make().text[:-1]
    result = fleetwatt("simulate", "--via", "http", "--for", "1s", API_KEY=half)
    assert (result.returncode, "FLEETWATT_API_KEY" in result.stderr) == (1, True)
    shown = fleetwatt("settings", API_KEY=half).stdout
    assert half not in result.stderr + shown


async def test_the_simulator_sends_with_its_key(
    settings: Settings, fleetwatt: Command, tmp_path: Path
) -> None:
    """All that it sends is acknowledged where a key is needed."""
    key = make_key(settings, "ingest")
    async with served(settings, tmp_path) as service:
        options = ("simulate", "--via", "http", "--devices", "2", "--interval", "200ms", "--for", "1s",
                   "--http-url", f"http://127.0.0.1:{service.port}")  # fmt: skip
        refused = fleetwatt(*options)
        assert refused.returncode == 1, refused.stdout
        assert "takes no request without a key" in refused.stderr
        sent = fleetwatt(*options, API_KEY=key.text)
        assert (sent.returncode, "rejected 0," in sent.stdout) == (0, True), sent.stdout + sent.stderr
