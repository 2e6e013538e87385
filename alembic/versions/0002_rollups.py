"""Hourly and daily rollups, what is rolled up, and which hours are stale."""

from __future__ import annotations

from service.migrations import run_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run sql/migrations/0002_rollups.sql, then the edition's own."""
    run_file(revision)
    run_file(revision, of_edition=True)
