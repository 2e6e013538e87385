"""Charging sessions in the database: add, change, list; the database itself refuses overlaps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType
from psycopg import errors

from service.db import ReadPool, fetch_all
from service.readings import DeviceId, Timestamp
from service.sql import query
from service.web.problems import Problem

SessionId = Annotated[DeviceId, Meta(description="1 to 64 characters of A-Z a-z 0-9 . _ : -")]


# Beyond any real session, and far from where conversions between zones leave the calendar.
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(3000, 1, 1, tzinfo=UTC)


class Session(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A session as it is told: start included, end excluded, no end while it is open."""

    session_id: str
    vehicle_id: str
    meter_id: str
    started_at: datetime
    ended_at: datetime | None


class NewSession(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A session as it is sent; without an id it gets a random one."""

    vehicle_id: DeviceId
    meter_id: DeviceId
    started_at: Timestamp
    ended_at: Timestamp | None = None
    session_id: SessionId | None = None


class SessionChange(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What to change in a session: its end, or a correction of anything else. A null end opens it again."""

    vehicle_id: DeviceId | UnsetType = UNSET
    meter_id: DeviceId | UnsetType = UNSET
    started_at: Timestamp | UnsetType = UNSET
    ended_at: Timestamp | UnsetType | None = UNSET


class Sessions(NamedTuple):
    """Charging sessions over a pool of connections."""

    pool: ReadPool

    async def add(self, new: NewSession) -> tuple[Session, bool]:
        """Store a session; give it and whether it is new: the same session sent twice is no mistake.

        Raises Problem: 400 when it ends before it starts, 409 when the meter serves another vehicle then or
        the id belongs to a different session.
        """
        values = {field: getattr(new, field) for field in new.__struct_fields__}
        _check_order(new.started_at, new.ended_at)
        try:
            [row] = await fetch_all(self.pool, query("add_session"), values)
        except errors.UniqueViolation:
            known = await self.get(str(new.session_id))
            sent = (new.vehicle_id, new.meter_id, new.started_at, new.ended_at)
            if (known.vehicle_id, known.meter_id, known.started_at, known.ended_at) == sent:
                return known, False
            message = f"session {known.session_id!r} exists with other values: change it with PATCH"
            raise Problem(409, "session_exists", message, field="sessionId") from None
        except errors.ExclusionViolation:
            raise await self._overlap(values) from None
        return Session(**row), True

    async def get(self, session_id: str) -> Session:
        """Give one session. Raises Problem 404."""
        rows = await fetch_all(self.pool, query("get_session"), {"session_id": session_id})
        if not rows:
            raise Problem(404, "unknown_session", f"there is no session {session_id!r}")
        return Session(**rows[0])

    async def change(self, session_id: str, change: SessionChange) -> Session:
        """End or correct a session. Raises Problem: 404, 400 (times in the wrong order), 409 (overlap)."""
        given: dict[str, Any] = {
            field: None if (value := getattr(change, field)) is UNSET else value
            for field in change.__struct_fields__
        }
        before = await self.get(session_id)
        change_end = change.ended_at is not UNSET
        merged: dict[str, Any] = {
            "session_id": session_id,
            "meter_id": given["meter_id"] or before.meter_id,
            "started_at": given["started_at"] or before.started_at,
            "ended_at": given["ended_at"] if change_end else before.ended_at,
        }
        _check_order(merged["started_at"], merged["ended_at"])
        try:
            rows = await fetch_all(
                self.pool,
                query("change_session"),
                {**given, "session_id": session_id, "change_end": change_end},
            )
        except errors.ExclusionViolation:
            raise await self._overlap(merged) from None
        except errors.DataException:
            # Another change came in between: together they would end the session before it starts.
            raise Problem(409, "session_changed", "the session was changed meanwhile: look again") from None
        return Session(**rows[0])

    async def list(self, filters: dict[str, Any]) -> list[Session]:
        """Give a page of sessions, newest start first; see the query list_sessions for the filters."""
        return [Session(**row) for row in await fetch_all(self.pool, query("list_sessions"), filters)]

    async def _overlap(self, values: dict[str, Any]) -> Problem:
        rows = await fetch_all(self.pool, query("overlapping_session"), values)
        other = msgspec.to_builtins(Session(**rows[0])) if rows else None
        named = f": session {other['sessionId']!r} of vehicle {other['vehicleId']!r}" if other else ""
        return Problem(
            409,
            "session_overlap",
            f"meter {values['meter_id']!r} serves another vehicle in that time{named}",
            title="A meter serves one vehicle at a time",
            field="meterId",
            extra={"other": other},
        )


def _check_order(started_at: datetime, ended_at: datetime | None) -> None:
    for name, moment in (("startedAt", started_at), ("endedAt", ended_at)):
        if moment is not None and not _EARLIEST <= moment <= _LATEST:
            raise Problem(400, "out_of_range", f'"{name}" lies outside the years 1900 to 2999', field=name)
    if ended_at is not None and ended_at <= started_at:
        raise Problem(400, "out_of_range", '"endedAt" must lie after "startedAt"', field="endedAt")
