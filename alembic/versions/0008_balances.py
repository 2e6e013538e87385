"""What each vehicle was billed and delivered, by hour and by day."""

from __future__ import annotations

from service.migrations import run_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run sql/migrations/0008_balances.sql."""
    run_file(revision)
