"""A file as blocks of numbered lines: plain, gzip or standard input, in constant memory."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from service.errors import ImportFileError

_BLOCK_BYTES: Final = 512 * 1024
_MAX_LINE_BYTES: Final = 1024 * 1024

# What service.ingest.decode strips when it tells a blank line: both sides must agree, or places in a
# body would slip.
_WHITESPACE: Final = b" \t\r\n"

_UTF8_MARK: Final = b"\xef\xbb\xbf"
_GZIP_MAGIC: Final = b"\x1f\x8b"
# The first bytes of what people take for CSV, and what to do about it.
_FOREIGN: Final = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: unpack it, or save the sheet as CSV",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
    b"PAR1": "Parquet: convert it to CSV",
}


class Block(NamedTuple):
    """Some lines of a file, without line ends and blank lines, and their numbers in it, from 1."""

    numbers: Sequence[int]
    lines: list[bytes]

    @property
    def body(self) -> bytes:
        """The lines as one payload, in which line i is the i-th."""
        return b"\n".join(self.lines)


class _Counted(io.RawIOBase):
    """A raw stream that counts what is read from it, compressed or not, pipe or file."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class Source:
    """An open file. `size_bytes` is its size on disk, None for a pipe."""

    def __init__(self, raw: IO[bytes], name: str) -> None:
        self.name = name
        mode = os.fstat(raw.fileno())
        self.size_bytes = mode.st_size if stat.S_ISREG(mode.st_mode) else None
        self._counted = _Counted(raw)
        buffered = io.BufferedReader(self._counted, _BLOCK_BYTES)
        packed = buffered.peek(2)[:2] == _GZIP_MAGIC
        self._stream: IO[bytes] = gzip.GzipFile(fileobj=buffered) if packed else buffered  # type: ignore[assignment]

    @property
    def bytes_read(self) -> int:
        """Bytes of the file as it is on disk that were read so far."""
        return self._counted.count

    def blocks(self, max_lines: int) -> Iterator[Block]:
        """Give the lines, at most `max_lines` at a time.

        Raises ImportFileError, naming the line, for a broken archive, a line beyond 1 MiB, and files
        that are evidently no text in an encoding that extends ASCII.
        """
        number, rest = 1, b""
        while data := self._read(number):
            if number == 1 and not rest:
                data = self._without_mark(data)
            complete, newline, rest = (rest + data).rpartition(b"\n")
            if len(rest) > _MAX_LINE_BYTES:
                number += complete.count(b"\n") + len(newline)
                raise ImportFileError(
                    f"{self.name}: line {number} is longer than 1 MiB; is this a text file?"
                )
            if newline:
                lines = complete.split(b"\n")
                yield from _sliced(lines, number, max_lines)
                number += len(lines)
        if rest:
            yield from _sliced([rest], number, max_lines)

    def _read(self, number: int) -> bytes:
        try:
            return self._stream.read(_BLOCK_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise ImportFileError(f"{self.name}: broken after line {number - 1}: {error}") from None

    def _without_mark(self, data: bytes) -> bytes:
        for magic, advice in _FOREIGN.items():
            if data.startswith(magic):
                raise ImportFileError(f"{self.name} is {advice}")
        return data.removeprefix(_UTF8_MARK)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a file, or standard input for "-"; gzip is told by its first bytes, whatever the name.

    Raises ImportFileError when there is no such file or it may not be read.
    """
    with ExitStack() as stack:
        try:
            standard_input = str(path) == "-"
            raw: IO[bytes] = sys.stdin.buffer if standard_input else stack.enter_context(path.open("rb", 0))
            source = Source(raw, "standard input" if standard_input else path.name)
        except OSError as error:
            raise ImportFileError(f"{path}: {error.strerror or error}") from None
        yield source


def decode_text(block: Block, encoding: str) -> list[str]:
    """Decode the lines of a block; raises ImportFileError that names the line of the first bad byte."""
    body = block.body
    try:
        return body.decode(encoding).split("\n")
    except UnicodeDecodeError as error:
        number = block.numbers[body.count(b"\n", 0, error.start)]
        raise ImportFileError(
            f"line {number}: byte 0x{body[error.start]:02x} is not {encoding}; "
            "name the file's encoding, such as --encoding cp1252"
        ) from None


def _sliced(lines: list[bytes], first: int, max_lines: int) -> Iterator[Block]:
    for start in range(0, len(lines), max_lines):
        part = [line.removesuffix(b"\r") for line in lines[start : start + max_lines]]
        numbers: Sequence[int] = range(first + start, first + start + len(part))
        if not all(line.strip(_WHITESPACE) for line in part):
            kept = [(n, line) for n, line in zip(numbers, part, strict=True) if line.strip(_WHITESPACE)]
            numbers, part = [n for n, _ in kept], [line for _, line in kept]
        if part:
            yield Block(numbers, part)
