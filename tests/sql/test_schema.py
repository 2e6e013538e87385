"""The checked-in dump is what the migrations build, and landed migrations never change."""

from __future__ import annotations

import hashlib

from service import paths
from tests.schema_dump import dump
from tests.servers import Postgres


def test_dump_equals_what_the_migrations_build(postgres: Postgres, database: str) -> None:
    """sql/schema.sql is current, and the same on both editions; `just schema` writes it anew."""
    assert dump(postgres, database) == (paths.SQL / "schema.sql").read_text()


def test_landed_migrations_are_frozen() -> None:
    """Each migration has the hash it landed with: a change goes into a new file."""
    landed = {}
    for line in (paths.SQL / "migrations/SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        landed[name] = digest
    here = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in paths.SQL.glob("migrations/*.sql")
    }
    assert here == landed
