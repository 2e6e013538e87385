"""`fleetwatt worker`: takes telemetry from the broker."""

from __future__ import annotations

import rich_click as click

from service import log
from service import settings as settings_module
from service.errors import FleetwattError


@click.command("worker")
@click.option(
    "--leave",
    is_flag=True,
    help="Store what the broker holds for this client id, then end its session there: for a worker that will "
    "not come back.",
)
def command(*, leave: bool) -> None:
    """Run an MQTT worker; start several with different FLEETWATT_MQTT_CLIENT_ID to share the load."""
    from service import app

    settings = settings_module.load()
    log.configure(settings.log_level, settings.log_format, service=True)
    try:
        app.work(settings, leave=leave)
    except ConnectionError as error:
        if not leave:
            raise
        raise FleetwattError(
            f"the session is not empty, or that cannot be told: {error}; try again"
        ) from None
