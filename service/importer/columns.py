"""Columns and constants: what an option such as `--kwh COL` or `--voltage =230` reads from a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from service.errors import ImportFileError
from service.importer.dialect import Row
from service.importer.refusal import CellError
from service.readings import DeviceId

ReadText = Callable[[Row], str]
ReadNumber = Callable[[Row], float]

# What meters and spreadsheets write where they have no value, in lower case.
_MISSING: Final = frozenset({"", "?", "-", "na", "n/a", "#n/a", "nan", "null", "none"})


class Columns:
    """The header of a file: finds columns by name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def position(self, name: str, option: str) -> int:
        """Give a column's place from 0; raises ImportFileError that lists the columns there are."""
        if name not in self.names:
            raise ImportFileError(f"{option} {name}: no such column; {self.listed()}")
        if self.names.count(name) > 1:
            raise ImportFileError(f"{option} {name}: several columns have this name; {self.listed()}")
        return self.names.index(name)

    def check(self, row: Row | None) -> Row:
        """Give a row that has the columns of the header; raises CellError for any other line."""
        if row is None:
            message = "a quote is left open or stands inside a field (a field may not hold a line break)"
            raise CellError(None, "malformed_csv", message)
        width = len(self.names)
        if len(row) != width and (len(row) < width or any(row[width:])):
            # Also what an unquoted decimal comma looks like: never take cells from shifted columns.
            raise CellError(None, "wrong_columns", f"{len(row)} columns, but the header has {width}")
        return row

    def first_of(self, names: Sequence[str]) -> str | None:
        """Give the first of these names that is a column."""
        return next((name for name in names if name in self.names), None)

    def listed(self) -> str:
        """List the columns, for an error message."""
        return "the file has " + ", ".join(self.names)


def id_reader(columns: Columns, text: str, option: str, field: str) -> ReadText:
    """Read the device id from the column of that name; `=CONST` is a constant.

    A constant has to say so: a misspelt column would make one device of all the rows.
    """
    if not text.startswith("="):
        if text not in columns:
            raise ImportFileError(
                f"{option} {text}: no such column; for a constant, ={text}; {columns.listed()}"
            )
        position = columns.position(text, option)

        def read(row: Row) -> str:
            cell = row[position].strip()
            if cell.lower() in _MISSING:
                raise missing(field, columns.names[position], cell)
            return cell

        return read
    constant = text.removeprefix("=")
    if not is_device_id(constant):
        raise ImportFileError(f"{option} {text}: not an id of 1 to 64 A-Z a-z 0-9 . _ : -")
    return lambda _: constant


def number_reader(
    columns: Columns,
    text: str,
    option: str,
    field: msgspec.structs.FieldInfo,
    *,
    divisor: float = 1.0,
    decimal_comma: bool = False,
) -> ReadNumber:
    """Read a number from a column, or give a constant (`=230`, or 230 where no column is called so).

    The number is divided by `divisor` to get it into the field's unit.
    """
    if text.startswith("=") or (text not in columns and _parse(text) is not None):
        value = _constant(text, option, field, divisor)
        return lambda _: value
    position = columns.position(text, option)
    name = columns.names[position]

    def read(row: Row) -> float:
        # The hot path of an import: nothing is looked at closely unless the cell is no plain number.
        try:
            value = float(row[position])
        except ValueError:
            raise _no_number(field.encode_name, name, row[position]) from None
        if value != value or "_" in row[position]:  # noqa: PLR0124 - NaN is what differs from itself
            raise _no_number(field.encode_name, name, row[position])
        return value / divisor

    def read_with_comma(row: Row) -> float:
        cell = row[position]
        value = None if "." in cell else _parse(cell.replace(",", "."))
        if value is None:
            raise _no_number(field.encode_name, name, cell, decimal_comma=True)
        return value / divisor

    return read_with_comma if decimal_comma else read


def text_reader(
    columns: Columns, names: Sequence[str], option: str, field: str, *, joint: str = " "
) -> ReadText:
    """Read one column, or several joined by `joint`."""
    positions = [columns.position(name, option) for name in names]

    def read(row: Row) -> str:
        cells = [row[position].strip() for position in positions]
        for cell, name in zip(cells, names, strict=True):
            if cell.lower() in _MISSING:
                raise missing(field, name, cell)
        return joint.join(cells)

    return read


def missing(field: str, column: str, cell: str) -> CellError:
    """Word the refusal of a cell without a value."""
    shown = f" ({cell})" if cell else ""
    return CellError(field, "missing", f"missing value in column {column}{shown}")


def is_device_id(text: str) -> bool:
    """Tell whether the rules of a reading allow this id."""
    try:
        msgspec.convert(text, DeviceId)
    except msgspec.ValidationError:
        return False
    return True


def _no_number(field: str, column: str, cell: str, *, decimal_comma: bool = False) -> CellError:
    if cell.strip().lower() in _MISSING:
        return missing(field, column, cell.strip())
    hint = ""
    if decimal_comma and "." in cell:
        hint = " with a decimal comma"
    elif not decimal_comma and _parse(cell.replace(",", ".")) is not None:
        hint = "; if the comma is a decimal point, add --decimal-comma"
    return CellError(field, "wrong_type", f"column {column} holds {cell[:80]!r}, which is not a number{hint}")


def _parse(text: str) -> float | None:
    """Give the number that a text spells; float() alone would also take 1_000 and nan."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if value != value or "_" in text else value  # noqa: PLR0124


def _constant(text: str, option: str, field: msgspec.structs.FieldInfo, divisor: float) -> float:
    value = _parse(text.removeprefix("="))
    if value is None:
        raise ImportFileError(f"{option} {text}: a constant must be a number, such as {option} =230")
    try:
        constant: Any = msgspec.convert(value / divisor, field.type)
    except msgspec.ValidationError as error:
        raise ImportFileError(f"{option} {text}: out of range: {error}") from None
    return float(constant)
