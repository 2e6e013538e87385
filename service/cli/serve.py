"""`fleetwatt serve`: the HTTP service."""

from __future__ import annotations

import os

import rich_click as click

from service import log
from service.cli.options import client_settings
from service.settings import PREFIX


@click.command("serve")
def command() -> None:
    """Run the HTTP service: ingest, analytics, sessions, API pages. Needs FLEETWATT_DATABASE_URL."""
    from service import app

    settings = client_settings()
    log.configure(settings.log_level, settings.log_format)
    # The server's own processes read the environment again.
    os.environ[PREFIX + "DATABASE_URL"] = settings.database_url
    app.serve(settings)
