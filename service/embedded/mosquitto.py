"""The embedded Mosquitto: a configuration that keeps what it took, and the process."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service.embedded.account import Account, give
from service.embedded.processes import Child

# The broker's defaults drop silently past 1,000 queued messages and keep 20 in flight.
_CONFIGURATION: Final = """\
# Written by fleetwatt at each start; changes here are lost.
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
# What a killed broker can lose is what it took since the last save.
autosave_interval 5
max_inflight_messages 0
max_queued_messages 5000000
max_queued_bytes 1073741824
max_packet_size 16777216
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
"""


def command_line(servers: Path, folder: Path, port: int, account: Account | None) -> list[str]:
    """Write the configuration into `folder` and give the command that runs the broker, on loopback only."""
    folder.mkdir(exist_ok=True, mode=0o700)
    give(folder, account)
    configuration = folder / "mosquitto.conf"
    configuration.write_text(_CONFIGURATION.format(port=port, folder=folder))
    give(configuration, account)
    return [str(servers / "usr/sbin/mosquitto"), "-c", str(configuration)]


def server(servers: Path, folder: Path, port: int, log_file: Path, account: Account | None) -> Child:
    """Give the broker's process."""
    return Child("mosquitto", command_line(servers, folder, port, account), log_file, account=account)


def url(port: int) -> str:
    """Give the broker's address."""
    return f"mqtt://127.0.0.1:{port}"
