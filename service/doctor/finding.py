"""What a check has found, and what every check is given."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from service import dsn
from service.embedded.instance import Running
from service.loopback import is_loopback
from service.settings import Settings

# error: readings are being lost, refused or soon will be. warning: it should be mended. note: nothing to do.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_EMBEDDED_PSQL: Final = (
    '"$(fleetwatt install-servers --path)/usr/lib/postgresql/17/bin/psql" "$(fleetwatt status --json | '
    'python3 -c \'import json, sys; print(json.load(sys.stdin)["database"])\')"'
)


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong: what, why it matters, and the command that mends it, "" where none would."""

    severity: Severity
    check: str
    what: str
    why: str
    command: str = ""


class Patient(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to look at: the settings, the embedded engine if it runs, and this machine.

    `broker_config` is the broker's configuration, where its file can be read here. `now` gives Unix time.
    """

    settings: Settings
    running: Running | None = None
    broker_config: Path | None = None
    now: Callable[[], float] = lambda: datetime.now(UTC).timestamp()

    @property
    def database_is_here(self) -> bool:
        """Tell whether the database runs on this machine, as far as its address tells."""
        return is_loopback(str(self.address.get("host") or self.address.get("hostaddr") or "localhost"))

    @property
    def address(self) -> dict[str, Any]:
        """Give the parameters of the database's address; SettingsError for one that cannot be read."""
        url = self.settings.database_url or self.settings.migrate_database_url
        return dsn.check(url) if url else {}

    def psql(self, *statements: str, **names: object) -> str:
        """Write a command that runs statements, with names put in, as a superuser of the database.

        Of the embedded server it is the owner, whose login `fleetwatt status` tells.
        """
        text = " ".join(f'-c "{statement.format_map(names)}"' for statement in statements)
        if self.running is not None:
            return f"{_EMBEDDED_PSQL} {text}"
        address = self.address
        where = [f"-h {address['host']}" if address.get("host") else "", f"-p {address.get('port') or 5432}"]
        return " ".join(
            filter(None, ["psql", *where, "-U postgres", f"-d {address.get('dbname') or 'fleetwatt'}", text])
        )


def machine_bytes() -> int:
    """Give the memory of this machine, or of the container that this runs in."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return memory
    return min(memory, int(limit)) if limit.isdecimal() else memory


def size(number: float) -> str:
    """Write bytes for people."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
