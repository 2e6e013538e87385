"""${message}."""

from __future__ import annotations

from service.migrations import run_file

revision = "${up_revision}"
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Run sql/migrations/${up_revision}_*.sql."""
    run_file(revision)
