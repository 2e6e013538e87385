"""The command `fleetwatt`: `_COMMANDS` names the file of each, imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import rich_click as click

from service import __version__
from service.errors import FleetwattError

# Command -> the module that holds it (as the attribute `command`) and its place in --help.
_COMMANDS = {
    "demo": "service.cli.demo",
    "up": "service.cli.up",
    "status": "service.cli.status",
    "top": "service.cli.top",
    "down": "service.cli.down",
    "serve": "service.cli.serve",
    "worker": "service.cli.worker",
    "migrate": "service.cli.migrate",
    "doctor": "service.cli.doctor",
    "seed": "service.cli.seed",
    "simulate": "service.cli.simulate",
    "import": "service.cli.import_file",
    "export": "service.cli.export",
    "sessions": "service.cli.sessions",
    "key": "service.cli.key",
    "dead-letters": "service.cli.dead_letters",
    "settings": "service.cli.settings",
    "install-servers": "service.cli.install_servers",
}


class _LateGroup(click.RichGroup):
    """A group that imports a command's module only when the command is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: Any = importlib.import_module(_COMMANDS[cmd_name]).command
        return command  # type: ignore[no-any-return]


@click.group(cls=_LateGroup)
@click.version_option(__version__, prog_name="fleetwatt")
def group() -> None:
    """Energy telemetry for EV fleets: billed AC against delivered DC, every reading stored exactly once."""


def main() -> None:
    """Run the command line; an error that the user can act on is one red line, not a traceback."""
    try:
        group(standalone_mode=True)
    except FleetwattError as error:
        from service import log

        if not log.tell_end(str(error)):
            # Its words may quote what stands in a file.
            lines = (log.printable(line) for line in str(error).split("\n"))
            click.secho("fleetwatt: " + "\n".join(lines), fg="red", err=True)
        sys.exit(1)
