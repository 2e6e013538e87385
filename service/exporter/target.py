"""Where an export goes: a file that appears when it is whole, or standard output."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from service.errors import ExportError


class Counted:
    """A stream that counts what is written to it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.count = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write bytes; give their number."""
        self._stream.write(data)
        self.count += len(data)
        return len(data)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._stream.flush()


@contextmanager
def open_target(path: Path) -> Iterator[tuple[Counted, IO[bytes]]]:
    """Open a file for writing, or standard output for "-"; gzip if its name ends with .gz.

    Gives what counts the bytes that come out, and what to write to. A file is written beside its place and
    takes it at the end, so that nobody finds half of one; where something fails, what was there stays. Raises
    ExportError for a place that cannot be written to.
    """
    if str(path) == "-":
        counted = Counted(sys.stdout.buffer)
        yield counted, cast("IO[bytes]", counted)
        counted.flush()
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(beside.open("xb"))
            counted = Counted(raw)
            stream = cast("IO[bytes]", counted)
            if path.suffix.lower() == ".gz":
                # No name and no time in it: equal data make equal files.
                packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0)
                stream = cast("IO[bytes]", stack.enter_context(packed))
            yield counted, stream
            if stream is not cast("IO[bytes]", counted):
                stream.close()
            raw.flush()
            os.fsync(raw.fileno())
        beside.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
