"""The loader of sql/queries: names are unique, each query is explained, nothing stands outside one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service import paths
from service.sql import queries, query


def load(folder: Path, **files: str) -> dict[str, str]:
    """Write files and load the queries in them."""
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text)
    return dict(queries(folder))


def test_our_own_queries_load() -> None:
    """Each query of the repository has its text, its comment and a name found under sql/queries."""
    found = queries()
    names = [
        name
        for file in (paths.SQL / "queries").glob("*.sql")
        for name in re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)
    ]
    assert sorted(found) == sorted(names)
    for name, text in found.items():
        assert query(name) == text
        assert text.startswith("-- "), name
        assert text.endswith(";"), name
        code = re.sub(r"\$\$[\s\S]*\$\$|^--.*$", "", text, flags=re.MULTILINE)
        assert code.count(";") == 1, f"{name} holds more than one statement"


def test_every_query_is_used() -> None:
    """A query that no code asks for is dead."""
    code = "".join(file.read_text() for file in Path(paths.__file__).parent.rglob("*.py"))
    assert [name for name in queries() if f'"{name}"' not in code] == []


def test_queries_of_several_files(tmp_path: Path) -> None:
    """Files are read in order; the text keeps its comment and loses the blank lines around it."""
    one = (
        "-- About the file.\n\n-- name: first\n-- Why.\nselect 1;\n\n-- name: second\n-- Why.\nselect '--';\n"
    )
    two = "-- name: third\n\n-- Why.\nselect 3;"
    found = load(tmp_path, one=one, two=two)
    assert found == {
        "first": "-- Why.\nselect 1;",
        "second": "-- Why.\nselect '--';",
        "third": "-- Why.\nselect 3;",
    }


def test_a_name_exists_once(tmp_path: Path) -> None:
    """The same name twice is refused, in one file or in two."""
    text = "-- name: same\n-- Why.\nselect 1;\n"
    with pytest.raises(ValueError, match="same exists twice"):
        load(tmp_path, a=text, b=text)
    with pytest.raises(ValueError, match="same exists twice"):
        load(tmp_path / ".." / tmp_path.name, a=text + text, b="")


def test_a_query_has_a_comment(tmp_path: Path) -> None:
    """A query without a line that says what it is for is refused."""
    with pytest.raises(ValueError, match="bare lacks a comment"):
        load(tmp_path, a="-- name: bare\nselect 1;\n")


def test_text_before_the_first_name(tmp_path: Path) -> None:
    """SQL that belongs to no name is refused; comments at the head of a file are fine."""
    with pytest.raises(ValueError, match="text before the first"):
        load(tmp_path, a="select 0;\n-- name: one\n-- Why.\nselect 1;\n")


def test_unknown_name() -> None:
    """A name that no file holds is an error."""
    with pytest.raises(KeyError):
        query("no_such_query")
