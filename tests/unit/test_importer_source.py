"""Files: archives, encodings, line ends, delimiters, and the numbers of their lines."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImportFileError
from service.importer.dialect import check_encoding, delimiter_of, sniff_delimiter, split_header, split_rows
from service.importer.source import Block, decode_text, open_source


def numbered(path: Path, max_lines: int = 5000) -> list[tuple[int, bytes]]:
    """Read a file as (number, line)."""
    with open_source(path) as source:
        return [
            pair
            for block in source.blocks(max_lines)
            for pair in zip(block.numbers, block.lines, strict=True)
        ]


def write(folder: Path, data: bytes, name: str = "file.csv") -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"end"])
def test_lines_keep_their_numbers(tmp_path: Path, end: bytes, last: bytes) -> None:
    """Blank lines are left out but counted, with either line end, with or without one at the end."""
    path = write(tmp_path, end.join([b"a", b"", b"b", b" \t", b"c", last]))
    expected = [(1, b"a"), (3, b"b"), (5, b"c")]
    assert numbered(path) == expected + ([(6, last)] if last else [])


@given(st.lists(st.sampled_from([b"", b" ", b"x,1", b"y;2", b"\tz"])), st.integers(1, 4))
def test_blocks_are_the_file(lines: list[bytes], max_lines: int) -> None:
    """Cut into blocks of any size, the file has the same lines under the same numbers."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as file:
        file.write(b"\n".join(lines))
    found = numbered(Path(f"/dev/fd/{read_end}"), max_lines)
    os.close(read_end)
    assert found == [(n, line) for n, line in enumerate(lines, 1) if line.strip()]


def test_gzip_by_its_first_bytes(tmp_path: Path) -> None:
    """An archive is told by what it holds, whatever its name; so is what only looks like one."""
    assert numbered(write(tmp_path, gzip.compress(b"a\nb\n"), "data.csv")) == [(1, b"a"), (2, b"b")]
    assert numbered(write(tmp_path, b"a\nb\n", "data.csv.gz")) == [(1, b"a"), (2, b"b")]


def test_progress_is_in_bytes_on_disk(tmp_path: Path) -> None:
    """Bytes read end at the size of the file, packed or not."""
    for data in (b"a\n" * 100_000, gzip.compress(b"a\n" * 100_000)):
        path = write(tmp_path, data)
        with open_source(path) as source:
            assert source.size_bytes == len(data)
            for _ in source.blocks(5000):
                pass
            assert source.bytes_read == len(data)


def test_a_truncated_archive_is_an_error(tmp_path: Path) -> None:
    """An archive that ends too early is not taken for a whole file."""
    packed = gzip.compress(os.urandom(50_000).hex().encode())
    for broken in (packed[:-20], packed[:-4] + b"\0\0\0\0", packed[:2000] + b"junk" * 20 + packed[2080:]):
        with pytest.raises(ImportFileError, match="broken after line"):
            numbered(write(tmp_path, broken, "file.csv.gz"))


def test_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A dash reads standard input, packed or not."""
    path = write(tmp_path, gzip.compress(b"a\nb"))
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert numbered(Path("-")) == [(1, b"a"), (2, b"b")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04rest", "spreadsheet"),
        ("a,b\n".encode("utf-16"), "UTF-16"),
        (b"x" * 1_700_000, "line 1 is longer than 1 MiB"),
        (b"a\n" + b"x" * 1_700_000, "line 2 is longer than 1 MiB"),
    ],
)
def test_what_is_no_text_file(tmp_path: Path, data: bytes, message: str) -> None:
    """A spreadsheet, UTF-16 or one endless line is refused with what to do."""
    with pytest.raises(ImportFileError, match=message):
        numbered(write(tmp_path, data))


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """No such file, or a folder, is one clear line."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ImportFileError, match=str(path)):
            numbered(path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 40 MB is read in a few megabytes."""
    path = write(tmp_path, gzip.compress(b"2026-01-01T00:00:00Z,1.5\n" * 1_600_000, 1))
    tracemalloc.start()
    with open_source(path) as source:
        lines = sum(len(block.lines) for block in source.blocks(5000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == 1_600_000
    assert peak < 12_000_000


def test_a_bad_byte_names_its_line() -> None:
    """Bytes that are not of the encoding name the line of the file, and the option that helps."""
    block = Block([7, 9, 10], [b"a", b"b", b"caf\xe9"])
    with pytest.raises(ImportFileError, match=r"line 10: byte 0xe9.*--encoding"):
        decode_text(block, "utf-8")
    assert decode_text(block, "cp1252")[2] == "caf\xe9"


def test_encodings() -> None:
    """Only encodings that keep ASCII can be cut into lines before they are decoded."""
    assert check_encoding("Latin-1") == "iso8859-1"
    for name in ("utf-16", "utf-32", "no-such", "cp037"):
        with pytest.raises(ImportFileError, match="--encoding"):
            check_encoding(name)


@pytest.mark.parametrize(
    ("lines", "delimiter"),
    [
        (["t,kwh", "2026,1"], ","),
        (["t;kwh", "2026;1,5", "2026;1,6"], ";"),
        (["t\tkwh, total\tv", "2026\t1,5\t2"], "\t"),
        (["t|kwh", "2026|1"], "|"),
        (["power, mean;time, local", "1,5;2026", "2,5;2026"], ";"),
        (['"a;b",c', '"1;2",3'], ","),
        (["kwh", "1"], ","),
    ],
)
def test_the_delimiter_is_found(lines: list[str], delimiter: str) -> None:
    """Decimal commas, quotes and commas in names do not mislead."""
    assert sniff_delimiter(lines) == delimiter


def test_delimiter_option() -> None:
    """One character or a word; anything else is an error."""
    assert (delimiter_of("tab"), delimiter_of("\\t"), delimiter_of("~")) == ("\t", "\t", "~")
    for text in ("", ",,", '"', "\n", "\u00e9"):
        with pytest.raises(ImportFileError, match="--delimiter"):
            delimiter_of(text)


def test_quotes_within_a_line() -> None:
    """Quoted fields hold delimiters and doubled quotes, and spaces may follow a delimiter."""
    assert split_rows(['"a,1", "say ""hi""",b'], ",") == [["a,1", 'say "hi"', "b"]]


def test_a_quote_left_open_costs_its_own_line_only() -> None:
    """Neither a line break in quotes nor a stray quote swallows the lines around it."""
    lines = ["a,1", '"b,2', 'c",3', "d,4", '"e"x,5', "f,6", '"g,7']
    assert split_rows(lines, ",") == [["a", "1"], None, ['c"', "3"], ["d", "4"], None, ["f", "6"], None]


def test_headers() -> None:
    """Names are stripped; JSON and bare CR are told from a header."""
    assert split_header('a ; "b;c"', ";") == ["a", "b;c"]
    for line in ('{"meterId": 1}', "a,b\r1,2\r3,4", '"a,b'):
        with pytest.raises(ImportFileError, match="first line"):
            split_header(line, ",")
