"""The logs of `fleetwatt up`, kept small over years: older parts lie beside each, and the oldest go."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from service import log

_MOST_BYTES: Final = 16 * 1024 * 1024
_KEPT: Final = 3
_EVERY_S: Final = 60.0


def _rotate(file: Path, most_bytes: int) -> None:
    if file.stat().st_size <= most_bytes:
        return
    older = [file.with_name(f"{file.name}.{number}") for number in range(1, _KEPT + 1)]
    partial = file.with_name(f"{file.name}.partial")
    try:
        shutil.copyfile(file, partial)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
    for newer, old in zip(reversed(older[:-1]), reversed(older[1:]), strict=True):
        if newer.exists():
            newer.rename(old)
    partial.rename(older[0])
    os.truncate(file, 0)


def rotate_all(folder: Path, most_bytes: int = _MOST_BYTES) -> None:
    """Begin every log of a folder anew that has grown past `most_bytes`.

    What it held becomes FILE.1, that FILE.2, up to FILE.3. The file stays the same one, since processes go on
    writing to it (at its end, wherever that is): a line that comes between the copy and the cut is lost.
    Where there is no room for the copy nothing is cut, and the log of this process says so.
    """
    for file in sorted(folder.glob("*.log")):
        try:
            _rotate(file, most_bytes)
        except OSError as error:
            log.get("supervisor").warning("log_not_rotated", file=str(file), error=error.strerror)


async def keep_small(folder: Path, every_s: float = _EVERY_S, most_bytes: int = _MOST_BYTES) -> NoReturn:
    """Rotate the logs of a folder for as long as this runs."""
    while True:
        await asyncio.to_thread(rotate_all, folder, most_bytes)
        await asyncio.sleep(every_s)
