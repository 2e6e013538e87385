"""A CSV file as a header and blocks of rows, whatever the rows are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from service.errors import ImportFileError
from service.importer.dialect import (
    Row,
    check_encoding,
    delimiter_of,
    sniff_delimiter,
    split_header,
    split_rows,
)
from service.importer.source import Block, Source, decode_text

BLOCK_LINES: Final = 5000
_SNIFFED_LINES: Final = 20


class Table(NamedTuple):
    """The names of the columns, and the lines behind them, cut into cells; None for a line that is no row."""

    header: Row
    blocks: Iterator[tuple[Block, list[Row | None]]]


def read_table(source: Source, delimiter: str | None, encoding: str) -> Table:
    """Read a file as CSV; without a delimiter, the one that fits the first lines is taken.

    Raises ImportFileError, here or while blocks are read, for what is no CSV in this encoding.
    """
    encoding = check_encoding(encoding)
    blocks = source.blocks(BLOCK_LINES)
    first = next(blocks, None)
    if first is None:
        raise ImportFileError(f"{source.name} is empty")
    head = decode_text(Block(first.numbers[:_SNIFFED_LINES], first.lines[:_SNIFFED_LINES]), encoding)
    found = delimiter_of(delimiter) if delimiter else sniff_delimiter(head)
    rows = (
        (block, split_rows(decode_text(block, encoding), found)) for block in _after_header(first, blocks)
    )
    return Table(split_header(head[0], found), rows)


def _after_header(first: Block, others: Iterator[Block]) -> Iterator[Block]:
    if len(first.lines) > 1:
        yield Block(first.numbers[1:], first.lines[1:])
    yield from others
