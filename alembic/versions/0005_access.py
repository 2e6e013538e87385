"""API keys of the HTTP service."""

from __future__ import annotations

from service.migrations import run_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run sql/migrations/0005_access.sql."""
    run_file(revision)
