"""`fleetwatt serve`: the HTTP service."""

from __future__ import annotations

import rich_click as click

from service import log
from service import settings as settings_module


@click.command("serve")
def command() -> None:
    """Run the HTTP service: ingest, analytics, sessions, API pages. Needs FLEETWATT_DATABASE_URL."""
    from service import app

    settings = settings_module.load()
    log.configure(settings.log_level, settings.log_format, service=True)
    app.serve(settings)
