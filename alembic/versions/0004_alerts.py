"""Efficiency alerts and the outbox of their events."""

from __future__ import annotations

from service.migrations import run_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run sql/migrations/0004_alerts.sql."""
    run_file(revision)
