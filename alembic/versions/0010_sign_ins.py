"""Sign-ins of browsers: a cookie in place of a key."""

from __future__ import annotations

from service.migrations import run_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Run sql/migrations/0010_sign_ins.sql."""
    run_file(revision)
