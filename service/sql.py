"""The loader of sql/queries: named, commented queries, and nothing assembled from strings.

A file holds queries, each under a line `-- name: some_name` and at least one more comment line that
says what it is for. Loaded text is typed LiteralString, so that a type checker refuses built SQL.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

from service import paths

_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)$", re.MULTILINE)


@cache
def queries(folder: Path = paths.SQL / "queries") -> dict[str, LiteralString]:
    """Load every query of a folder, by name.

    Raises ValueError for a name used twice, a query without a comment, or text before the first name.
    """
    found: dict[str, LiteralString] = {}
    for file in sorted(folder.glob("*.sql")):
        head, *parts = _NAME.split(file.read_text())
        if any(line.strip() and not line.startswith("--") for line in head.splitlines()):
            raise ValueError(f"{file.name}: text before the first `-- name:` line")
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"{file.name}: the query {name} exists twice")
            if not body.lstrip().startswith("--"):
                raise ValueError(f"{file.name}: the query {name} lacks a comment that says what it is for")
            found[name] = cast("LiteralString", body.strip())
    return found


def query(name: str) -> LiteralString:
    """Give one query by name; KeyError if sql/queries has none of that name."""
    return queries()[name]
