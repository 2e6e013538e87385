"""Rollups of the hours that sessions cover in part."""

from __future__ import annotations

from service.migrations import run_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run sql/migrations/0007_session_edges.sql."""
    run_file(revision)
