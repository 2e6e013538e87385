"""Refused lines of files are kept once."""

from __future__ import annotations

from service.migrations import run_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Run sql/migrations/0011_imported_letters.sql."""
    run_file(revision)
