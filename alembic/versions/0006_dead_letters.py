"""Dead letters that can be tried again."""

from __future__ import annotations

from service.migrations import run_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run sql/migrations/0006_dead_letters.sql."""
    run_file(revision)
