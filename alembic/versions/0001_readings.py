"""Readings, hot state, sessions, dead letters, counters and roles."""

from __future__ import annotations

from service.migrations import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run sql/migrations/0001_readings.sql."""
    run_file(revision)
