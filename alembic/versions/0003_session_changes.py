"""The audit trail of sessions, and session messages that wait."""

from __future__ import annotations

from service.migrations import run_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run sql/migrations/0003_session_changes.sql."""
    run_file(revision)
