"""How long readings and rollups are kept, and in which form."""

from __future__ import annotations

from service.migrations import run_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Run sql/migrations/0009_lifecycle.sql."""
    run_file(revision)
