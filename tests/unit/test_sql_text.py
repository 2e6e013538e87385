"""No statement is put together from values: SQL stands in files, or is a constant where it is run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from service import paths

# What sends SQL to the database, and which of its arguments that is.
_RUN: Final = {
    "execute": 0,
    "executemany": 0,
    "copy": 0,
    "exec_driver_sql": 0,
    "text": 0,
    "fetch_all": 1,
    "Question": 0,
}
# Where it is neither a constant nor a query by name. Each line is a decision.
_ALLOWED: Final = {
    # A named query, handed on.
    "service/db.py: statement",
    "service/line.py: statement",
    "service/questions.py: statement",
    "service/alerts/channel.py: statement",
    "service/analytics/reads.py: statement",
    "service/doctor/look.py: statement",
    "service/exporter/run.py: statement",
    "service/analytics/series.py: _KNOWN[device]",
    "service/analytics/series.py: _WORST[by]",
    "service/analytics/series.py: statement",
    "service/maintenance/dead_letters.py: statement",
    "service/sessions/expiry.py: statement",
    "service/sessions/messages.py: statement",
    "service/stream/look.py: statement",
    # The constants of a kind of reading, in service/ingest/streams.py.
    "service/ingest/transaction.py: part.stream.copy",
    "service/ingest/transaction.py: stream.compare",
    "service/ingest/transaction.py: stream.insert_new",
    # A file of sql/, as it is.
    "service/migrations.py: script",
}
_SERVICE: Final = Path(paths.__file__).parent
_WORDS: Final = ("select", "insert", "update", "delete", "create", "alter", "drop", "grant", "copy", "call")


def _statements(file: Path) -> list[ast.expr]:
    """Give what a file sends as SQL."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            place = _RUN.get(name)
            if place is not None and len(node.args) > place:
                found.append(node.args[place])
    return found


def _is_fixed(statement: ast.expr) -> bool:
    """Tell whether it is a constant, a query by its name, or a constant wrapped for SQLAlchemy."""
    if isinstance(statement, ast.Call):
        return getattr(statement.func, "attr", getattr(statement.func, "id", "")) in {"query", "text"}
    return isinstance(statement, ast.Constant)


def test_no_statement_is_built() -> None:
    """Wherever SQL is sent it is a constant, a query of sql/queries by name, or on the list above."""
    found = {
        f"{file.relative_to(_SERVICE.parent)}: {ast.unparse(statement)}"
        for file in _SERVICE.rglob("*.py")
        for statement in _statements(file)
        if not _is_fixed(statement)
    }
    assert found == _ALLOWED


def test_the_names_of_queries_are_constants() -> None:
    """A query is asked for by a name that stands in the code."""
    for file in _SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "query":
                # _WORST and the like choose among names that a request cannot write.
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}"


def test_no_sql_text_is_formatted() -> None:
    """No f-string, format(), % or + begins like SQL: not one, so there is no list."""
    for file in _SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            first: ast.expr | None = None
            if isinstance(node, ast.JoinedStr) and node.values:
                first = node.values[0]
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
                first = node.left
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "format":
                first = getattr(node.func, "value", None)
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                assert first.value.split(" ")[0].lower() not in _WORDS, f"{file}: {first.value}"
