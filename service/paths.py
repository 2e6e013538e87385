"""Where fleetwatt finds its own SQL and where it keeps caches and data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent


def _bundled(name: str) -> Path:
    """Give a top-level folder: beside the package in a checkout, inside it in an installed wheel."""
    checkout = _PACKAGE.parent / name
    return (
        checkout
        if checkout.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file()
        else (_PACKAGE / "bundle" / name)
    )


SQL: Final = _bundled("sql")
ALEMBIC: Final = _bundled("alembic")


def _xdg(variable: str, fallback: str) -> Path:
    """Give an XDG base directory; the specification says to ignore a relative one."""
    value = Path(os.environ.get(variable, ""))
    return value if value.is_absolute() else Path.home() / fallback


def cache_dir() -> Path:
    """Give the folder for downloads and unpacked servers; safe to delete at any time."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "fleetwatt"


def data_home() -> Path:
    """Give the folder that holds the data directories of an ordinary user."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "fleetwatt"
