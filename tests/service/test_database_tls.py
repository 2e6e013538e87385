"""TLS to the database: libpq's modes, given in the URL, hold for pools, writers, migrations and commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import pytest
import trustme

from service import migrations, paths
from service.settings import Settings
from tests.support import servers
from tests.support.servers import PASSWORD, Postgres
from tests.support.strategies import encode, meter, serving

pytestmark = pytest.mark.anyio

# Without a line for unencrypted connections, those are refused; one database wants a client's certificate.
_HBA: Final = """
hostssl certified all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
hostssl all all 127.0.0.1/32 scram-sha-256
"""


class Secured(NamedTuple):
    """A server with TLS, and files for its clients."""

    server: Postgres
    authority: str
    other_authority: str
    certificate: str
    key: str

    def url(self, user: str, database: str, **parameters: str) -> str:
        """Give an address with libpq's parameters."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"{self.server.url(user, database)}?{query}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """Run a server that takes encrypted connections only."""
    authority, other = trustme.CA(), trustme.CA()
    # Named by its address only, so that "localhost" is somebody else.
    certificate = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("client@fleetwatt.example")
    with servers.scratch_dir() as folder:
        for name, pem in (
            ("ca.pem", authority.cert_pem),
            ("other.pem", other.cert_pem),
            ("server.pem", certificate.cert_chain_pems[0]),
            ("server.key", certificate.private_key_pem),
            ("client.pem", client.cert_chain_pems[0]),
            ("client.key", client.private_key_pem),
        ):
            pem.write_to_path(str(folder / name))
            (folder / name).chmod(0o600 if name.endswith(".key") else 0o644)
        (folder / "hba.conf").write_text(_HBA)
        (folder / "hba.conf").chmod(0o644)
        if servers.ACCOUNT:
            shutil.chown(folder / "server.key", servers.ACCOUNT.uid)
        changed = {
            "ssl": "on",
            "ssl_ca_file": str(folder / "ca.pem"),
            "ssl_cert_file": str(folder / "server.pem"),
            "ssl_key_file": str(folder / "server.key"),
            "hba_file": str(folder / "hba.conf"),
        }
        with servers.running_postgres(servers.apache_root(), changed) as server:
            yield Secured(
                server,
                *(str(folder / name) for name in ("ca.pem", "other.pem", "client.pem", "client.key")),
            )


@pytest.fixture
def database_of(secured: Secured) -> Iterator[str]:
    """Give a migrated database on that server."""
    with secured.server.database() as name:
        yield name


def _run(command: str, url: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEETWATT_")}
    return subprocess.run(
        [sys.executable, "-m", "service", *command.split()],
        cwd=Path(paths.__file__).parents[1],
        env=environment | {"FLEETWATT_DATABASE_URL": url, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def _modes(secured: Secured) -> list[dict[str, str]]:
    root = {"sslrootcert": secured.authority}
    return [{"sslmode": "require"}, {"sslmode": "verify-ca"} | root, {"sslmode": "verify-full"} | root]


async def test_everything_speaks_tls(secured: Secured, database_of: str) -> None:
    """In each mode readings are stored and read, migrations run, and no connection is unencrypted."""
    for number, mode in enumerate(_modes(secured)):
        url = secured.url("fleetwatt_service", database_of, **mode)
        migrations.migrate(secured.url("fleetwatt_owner", database_of, **mode))
        async with serving(Settings(database_url=url, retry_max_s=0.2)) as client:
            stored: Any = await client.post("/v1/telemetry", content=encode(meter(minute=number)))
            assert stored.status_code == 200, stored.text
            assert (await client.get("/v1/ingest/meter/m-1/current")).status_code == 200
            with secured.server.admin() as connection:
                seen = connection.execute(
                    "select a.application_name, s.ssl from pg_stat_activity as a "
                    "join pg_stat_ssl as s using (pid) where a.datname = %s",
                    (database_of,),
                ).fetchall()
        names = {name for name, _ in seen}
        assert {"fleetwatt read", "fleetwatt write"} <= names
        assert all(encrypted for _, encrypted in seen)
        assert _run("sessions list", url).returncode == 0


@pytest.mark.parametrize("command", ["migrate", "key list"])
async def test_an_unencrypted_connection_is_refused(secured: Secured, database_of: str, command: str) -> None:
    """A server that insists on TLS gets no password in the clear, and the command says what was wrong."""
    told = _run(command, secured.url("fleetwatt_owner", database_of, sslmode="disable"))
    assert told.returncode == 1
    assert "no encryption" in told.stderr
    assert told.stderr.startswith("fleetwatt: ")
    assert f":{PASSWORD}@" not in told.stderr


@pytest.mark.parametrize("command", ["migrate", "key list"])
async def test_a_server_of_another_authority_is_refused(
    secured: Secured, database_of: str, command: str
) -> None:
    """Whoever cannot show a certificate of our authority gets neither password nor readings."""
    url = secured.url(
        "fleetwatt_owner", database_of, sslmode="verify-full", sslrootcert=secured.other_authority
    )
    told = _run(command, url)
    assert told.returncode == 1
    assert "certificate verify failed" in told.stderr
    assert told.stderr.startswith("fleetwatt: ")
    assert "Traceback" not in told.stderr


async def test_a_server_of_another_name_is_refused(secured: Secured, database_of: str) -> None:
    """Of the two modes that look at the certificate, verify-full also looks at the name on it."""
    for mode, fits in (("verify-ca", True), ("verify-full", False)):
        url = secured.url("fleetwatt_owner", database_of, sslmode=mode, sslrootcert=secured.authority)
        told = _run("key list", url.replace("127.0.0.1", "localhost"))
        assert (told.returncode == 0) is fits, told.stderr
        assert ("does not match host name" in told.stderr) is not fits


async def test_a_client_shows_its_certificate(secured: Secured) -> None:
    """Where the server wants one, the URL names certificate and key; without them it is refused."""
    with secured.server.admin() as connection:
        connection.execute("create database certified template fleetwatt_template owner fleetwatt_owner")
    shown = {"sslmode": "verify-full", "sslrootcert": secured.authority}
    assert (
        "requires a valid client certificate"
        in _run("key list", secured.url("fleetwatt_owner", "certified", **shown)).stderr
    )
    shown |= {"sslcert": secured.certificate, "sslkey": secured.key}
    assert _run("key list", secured.url("fleetwatt_owner", "certified", **shown)).returncode == 0
    async with serving(
        Settings(database_url=secured.url("fleetwatt_service", "certified", **shown), retry_max_s=0.2)
    ) as client:
        assert (await client.post("/v1/telemetry", content=encode(meter()))).status_code == 200
    with psycopg.connect(secured.url("fleetwatt_owner", "certified", **shown)) as connection:
        assert connection.execute("select count(*) from meter_reading").fetchone() == (1,)
