"""A connection that asks named queries and cannot be kept waiting."""

from __future__ import annotations

from typing import Any, LiteralString, Self

import psycopg
from psycopg.rows import dict_row


class Look:
    """What the database answers to named queries, row by row as dicts; psycopg.Error where it does not."""

    def __init__(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self._connection = connection

    @classmethod
    def at(cls, url: str) -> Self:
        """Connect; psycopg.OperationalError if nobody answers."""
        return cls(
            psycopg.connect(
                url,
                autocommit=True,
                row_factory=dict_row,
                application_name="fleetwatt doctor",
                connect_timeout=5,
                options="-c timezone=UTC -c statement_timeout=20s -c lock_timeout=5s "
                "-c default_transaction_read_only=on",
            )
        )

    def rows(self, statement: LiteralString, **values: Any) -> list[dict[str, Any]]:
        """Ask for all rows."""
        return self._connection.execute(statement, values).fetchall()

    def one(self, statement: LiteralString, **values: Any) -> dict[str, Any]:
        """Ask for the one row that there is."""
        [row] = self.rows(statement, **values)
        return row

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
