"""`fleetwatt worker`: takes telemetry from the broker."""

from __future__ import annotations

import rich_click as click

from service import log
from service import settings as settings_module


@click.command("worker")
def command() -> None:
    """Run an MQTT worker; start several with different FLEETWATT_MQTT_CLIENT_ID to share the load."""
    from service import app

    settings = settings_module.load()
    log.configure(settings.log_level, settings.log_format)
    app.work(settings)
