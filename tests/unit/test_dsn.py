"""The database's address: read without telling of the password, and warned of where the way is open."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from service import dsn
from service.errors import SettingsError


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "postgresql://user:p/s3cret@host/db",
        "postgresql://user:s3cret@[host/db",
        "postgresql://user:1/s3cret@host/db",
        "postgresql://user:s3cret%zz@host/db",
        "postgresql://user:s3cret@host:port/db",
        "postgresql://user:s3cret@host/db?bogus=1",
        "mysql://user:s3cret@host/db",
        "host=h password='s3cret",
    ],
)
def test_a_bad_address_is_refused_without_a_word_of_it(url: str) -> None:
    """The message names the variable and the right form; libpq's own would quote the password."""
    with pytest.raises(SettingsError, match=r"^FLEETWATT_X cannot be read: it must look like") as caught:
        dsn.check(url, "FLEETWATT_X")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://u@db.example/d", "db.example"),
        ("postgresql://u@db.example/d?sslmode=prefer", "db.example"),
        ("postgresql://u@db.example/d?sslmode=disable", "db.example"),
        ("postgresql://u@10.0.0.1/d", "10.0.0.1"),
        ("postgresql://u@localhost,db.example/d", "db.example"),
        ("host=localhost hostaddr=10.0.0.1", "10.0.0.1"),
        ("postgresql://u@db.example/d?sslmode=require", None),
        ("postgresql://u@db.example/d?sslmode=verify-ca", None),
        ("postgresql://u@db.example/d?sslmode=verify-full", None),
        ("postgresql://u@localhost/d", None),
        ("postgresql://u@127.0.0.1/d", None),
        ("postgresql://u@[::1]/d", None),
        ("host=/run/postgresql", None),
        ("dbname=d", None),
    ],
)
def test_an_open_way_is_warned_of_once(url: str, host: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off this machine, without TLS that is insisted on, there is one warning that names the host."""
    for variable in ("PGHOST", "PGHOSTADDR", "PGSSLMODE"):
        monkeypatch.delenv(variable, raising=False)
    with capture_logs() as logs:
        dsn.warn_unprotected(url)
    assert [entry["host"] for entry in logs] == ([host] if host else [])
    assert all(entry["event"] == "database_not_protected" for entry in logs)


def test_libpqs_own_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and mode may come from PGHOST and PGSSLMODE, as for every client of libpq."""
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.delenv("PGSSLMODE", raising=False)
    assert dsn.unprotected("dbname=d") == "db.example"
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert dsn.unprotected("dbname=d") is None
