"""How rows are written: CSV and NDJSON as the database words them, Parquet made of the former."""

from __future__ import annotations

import io
import json
from typing import IO, Any, Final, Literal, LiteralString, Protocol

from psycopg import sql

from service import __version__
from service.errors import ExportError
from service.exporter.datasets import Column, Dataset

Format = Literal["csv", "ndjson", "parquet"]

# Rows of one row group: some 20 MB before they are packed.
_ROW_GROUP: Final = 500_000


class Writer(Protocol):
    """Takes what COPY gives, in blocks of whole rows."""

    def write(self, block: bytes) -> None:
        """Write some rows."""

    def close(self) -> None:
        """Write what ends the file."""


def copy_statement(dataset: Dataset, form: Format) -> sql.Composed:
    """Give the COPY of a dataset's query, whose parameters stay open.

    Numbers come with as few digits as read back as the same; times as 2026-01-31 12:00:00+00 in CSV, and in
    NDJSON as RFC 3339 has them.
    """
    text = sql.SQL(dataset.query.rstrip(";"))
    if form != "ndjson":
        return sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(text)
    names = sql.SQL(", ").join(sql.Identifier(column.json_name) for column in dataset.columns)
    # COPY's own format would double the backslashes of JSON: these two characters are in none.
    return sql.SQL(
        "COPY (SELECT row_to_json(r) FROM ({}) AS r ({})) "
        "TO STDOUT (FORMAT csv, DELIMITER e'\\x01', QUOTE e'\\x02')"
    ).format(text, names)


def writer(form: Format, dataset: Dataset, target: IO[bytes], about: dict[str, str]) -> Writer:
    """Make the writer of a format; `about` is kept in files that have room for it.

    Raises ExportError where a package that it needs is not there.
    """
    if form == "parquet":
        return _Parquet(dataset, target, about)
    return _Plain(dataset.columns if form == "csv" else None, target)


class _Plain:
    """What COPY gives, as it is; before it a line of names, if there are any."""

    def __init__(self, header: tuple[Column, ...] | None, target: IO[bytes]) -> None:
        self._target = target
        if header is not None:
            target.write(",".join(column.name for column in header).encode() + b"\n")

    def write(self, block: bytes) -> None:
        self._target.write(block)

    def close(self) -> None:
        pass


class _Parquet:
    """Typed columns, packed with zstd; ids as dictionaries, units beside each column."""

    def __init__(self, dataset: Dataset, target: IO[bytes], about: dict[str, str]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.csv
            import pyarrow.parquet
        except ImportError:
            raise ExportError(
                "Parquet needs pyarrow, which is not installed: install fleetwatt with the extra `parquet` "
                "(docs/install.md); or choose CSV or NDJSON"
            ) from None
        types = {
            "id": pa.dictionary(pa.int32(), pa.string()),
            "time": pa.timestamp("us", tz="UTC"),
            "number": pa.float64(),
            "count": pa.int64(),
        }
        self._pa: Any = pa
        self._schema = pa.schema(
            [
                pa.field(c.name, types[c.type], metadata={"unit": c.unit} if c.unit else None)
                for c in dataset.columns
            ],
            metadata={"fleetwatt": json.dumps({"version": __version__, **about})},
        )
        self._read = pa.csv.ReadOptions(column_names=self._schema.names)
        self._convert = pa.csv.ConvertOptions(
            column_types={field.name: field.type for field in self._schema}, null_values=[""]
        )
        self._writer = pa.parquet.ParquetWriter(
            target,
            self._schema,
            compression="zstd",
            use_dictionary=[c.name for c in dataset.columns if c.type == "id"],
        )
        self._waiting: list[Any] = []
        self._rows = 0

    def write(self, block: bytes) -> None:
        table = self._pa.csv.read_csv(
            io.BytesIO(block), read_options=self._read, convert_options=self._convert
        )
        self._waiting.append(self._pa.Table.from_arrays(table.columns, schema=self._schema))
        self._rows += table.num_rows
        if self._rows >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            table = self._pa.concat_tables(self._waiting).unify_dictionaries()
            self._waiting, self._rows = [], 0
            self._writer.write_table(table, row_group_size=_ROW_GROUP)


def format_of(name: str) -> Format | None:
    """Tell a format by a file's name; None where it does not say."""
    endings: dict[LiteralString, Format] = {
        ".csv": "csv",
        ".ndjson": "ndjson",
        ".jsonl": "ndjson",
        ".parquet": "parquet",
    }
    bare = name.lower().removesuffix(".gz")
    return next((form for ending, form in endings.items() if bare.endswith(ending)), None)
