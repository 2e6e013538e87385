"""Looks at the states in the database: at what is wanted, and of that at what may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any, Final, LiteralString, NamedTuple, Self

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from service import db
from service.readings import Kind
from service.sql import query
from service.states import meter_state, vehicle_state
from service.stream.board import EVENT_STATES_MAX, Board

# Read one by one up to so many devices, and the whole table beyond.
_IDS_MAX: Final = 1000
# A server that does not answer for so long is taken for frozen.
_PATIENCE_S: Final = 30.0
# After a look the database is left alone for so many times as long as it took to answer, and this process for
# so many times as long as it took to word what has changed, however many devices there are.
_REST_ASKED: Final = 20
_REST_WORDED: Final = 10


class Wanted(NamedTuple):
    """Which devices of a kind somebody wants: all, or some ids (none at all, perhaps)."""

    ids: frozenset[str] | None = frozenset()

    def joined(self, other: Wanted) -> Wanted:
        """Give what either wants."""
        if self.ids is None or other.ids is None:
            return Wanted(None)
        ids = self.ids | other.ids
        return Wanted(ids if len(ids) <= _IDS_MAX else None)

    def within(self, other: Wanted) -> bool:
        """Tell whether the other one has all of these."""
        return other.ids is None or (self.ids is not None and self.ids <= other.ids)


class _Table(NamedTuple):
    """Where the states of a kind are, and how they are worded."""

    id_column: str
    changed: LiteralString
    some: LiteralString
    word: Callable[[dict[str, Any]], dict[str, Any]]


_TABLES: Final[dict[Kind, _Table]] = {
    "vehicle": _Table(
        "vehicle_id", query("changed_vehicle_states"), query("changed_vehicle_states_of"), vehicle_state
    ),
    "meter": _Table("meter_id", query("changed_meter_states"), query("changed_meter_states_of"), meter_state),
}
KINDS: Final[tuple[Kind, ...]] = ("vehicle", "meter")
Wish = dict[Kind, Wanted]


class Eyes:
    """A connection that is told of commits and looks at states.

    No change is missed, however long a transaction lasts or the connection is lost: the number of a row's
    transaction tells whether the look before could see it. The moment in `updated_at` does not, since it is
    that of the transaction's start.
    """

    def __init__(self, connection: AsyncConnection[Any], stir: Callable[[], None]) -> None:
        self._connection = connection
        self._stir = stir
        self._asked_s = self._worded_s = 0.0

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str, stir: Callable[[], None]) -> AsyncIterator[Self]:
        """Connect; `stir` is called when something was committed, or the connection is lost."""
        async with await db.writer_connection(url, "stream") as connection:
            connection.add_notify_handler(lambda _: stir())
            await connection.execute(query("listen_for_states"))
            yield cls(connection, stir)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Be told of commits while the body waits; without a query the driver reads nothing by itself."""
        loop = asyncio.get_running_loop()
        descriptor = self._connection.fileno()

        def heard() -> None:
            # Once is enough: what came is read by the next query.
            loop.remove_reader(descriptor)
            self._stir()

        loop.add_reader(descriptor, heard)
        try:
            yield
        finally:
            loop.remove_reader(descriptor)

    async def look(self, wish: Wish, board: Board) -> float:
        """Put on the board what has changed, of what is wanted, since it was last looked for.

        Of a new board only the position is fixed. Gives the seconds to leave the database alone then.

        Raises psycopg.Error, also when the server, however alive its sockets, does not answer.
        """
        self._asked_s = self._worded_s = 0.0
        timer = asyncio.get_running_loop().call_later(_PATIENCE_S, self.hang_up)
        try:
            # Asked before the states: what commits in between is looked at twice rather than never.
            [row] = await self._rows(query("stream_position"))
            position = int(row["stream_position"])
            if board.position is not None:
                # A lower one is that of another server, and says nothing of this one.
                since = str(board.position) if board.position <= position else None
                for kind in KINDS:
                    await self._look(kind, wish[kind], since, board)
            board.position = position
        finally:
            timer.cancel()
        return max(_REST_ASKED * self._asked_s, _REST_WORDED * self._worded_s)

    def hang_up(self) -> None:
        """Fail what is under way, also with a server that is frozen."""
        db.hang_up(self._connection)

    async def _look(self, kind: Kind, wanted: Wanted, since: str | None, board: Board) -> None:
        if wanted.ids == frozenset():
            return
        table = _TABLES[kind]
        statement = table.changed
        parameters: dict[str, Any] = {"stream_position": since}
        if wanted.ids is not None:
            statement = table.some
            parameters["ids"] = sorted(wanted.ids)
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            began = perf_counter()
            await cursor.execute(statement, parameters)
            self._asked_s += perf_counter() - began
            began = perf_counter()
            while rows := await cursor.fetchmany(EVENT_STATES_MAX):
                board.put(
                    kind, [(row[table.id_column], msgspec.json.encode(table.word(row))) for row in rows]
                )
                self._worded_s += perf_counter() - began
                # Others have their turn: these take some milliseconds.
                await asyncio.sleep(0)
                began = perf_counter()

    async def _rows(self, statement: LiteralString) -> list[dict[str, Any]]:
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement)
            return await cursor.fetchall()
