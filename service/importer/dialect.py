"""How a CSV file is written: its delimiter, its header, and lines to rows, one row a line."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from typing import Final

from service.errors import ImportFileError

Row = list[str]

DELIMITERS: Final = (",", ";", "\t", "|")
_NAMED: Final = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def delimiter_of(text: str) -> str:
    """Give the delimiter that an option names: one character, or a word such as tab."""
    delimiter = _NAMED.get(text.lower(), text)
    if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
        raise ImportFileError(f"--delimiter {text!r}: give one character, or the word tab")
    return delimiter


def check_encoding(encoding: str) -> str:
    """Give the encoding's usual name; it must keep ASCII, because lines are cut before they are decoded."""
    try:
        if '\n,;"0'.encode(encoding) == b'\n,;"0':
            return codecs.lookup(encoding).name
    except LookupError:
        raise ImportFileError(f"--encoding {encoding}: there is no such encoding") from None
    raise ImportFileError(f"--encoding {encoding}: convert the file to UTF-8 first")


def sniff_delimiter(lines: Sequence[str]) -> str:
    """Guess the delimiter from the first lines: the one that gives most lines as many columns as the header.

    Commas inside a decimal-comma number, or in a column's name, thus lose against the real one.
    """

    def score(delimiter: str) -> tuple[int, int]:
        widths = [len(row) if row else 0 for row in split_rows(lines, delimiter)]
        return (widths.count(widths[0]), widths[0]) if widths[0] > 1 else (0, 0)

    return max(DELIMITERS, key=score)


def split_header(line: str, delimiter: str) -> Row:
    """Give the column names; raises ImportFileError when the first line cannot be a header."""
    if line.lstrip().startswith(("{", "[")):
        raise ImportFileError("the first line looks like JSON, not like a CSV header: add --format ndjson")
    row = split_rows([line], delimiter)[0]
    if row is None:
        raise ImportFileError("the first line is not a CSV header: a quote is open, or line ends are bare CR")
    return [name.strip() for name in row]


def split_rows(lines: Sequence[str], delimiter: str) -> list[Row | None]:
    """Split each line into its cells; None for a line that is not a row by itself.

    A quoted field may not go on in the next line: such lines are refused one by one. To join them would
    let one stray quote swallow the good lines behind it, up to the next one anywhere in the file.
    """
    try:
        rows: list[Row | None] = [*_reader(lines, delimiter)]
    except csv.Error:
        rows = []
    # Lines that were joined make fewer rows, so equal counts mean that row i is line i.
    return rows if len(rows) == len(lines) else [_split_one(line, delimiter) for line in lines]


def _split_one(line: str, delimiter: str) -> Row | None:
    try:
        return next(_reader([line], delimiter), None)
    except csv.Error:
        return None


def _reader(lines: Sequence[str], delimiter: str) -> Iterator[Row]:
    # strict: a quote left open at the end of the lines is an error, not a field.
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=delimiter != " ")
