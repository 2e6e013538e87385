"""What a charging session is, and the rules that hold wherever one comes from."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.readings import DeviceId, Timestamp

SessionId = Annotated[DeviceId, Meta(description="1 to 64 characters of A-Z a-z 0-9 . _ : -")]

# Beyond any real session, and far from where conversions between zones leave the calendar.
_EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)

# Any constant will do as long as it stays: ids of imported sessions follow from it.
_NAMESPACE: Final = uuid.UUID("5e551045-f1ee-4a77-8000-000000000001")


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


class SessionUpdate(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What to change in a session: its end, or a correction of anything else. A null end opens it again."""

    vehicle_id: DeviceId | UnsetType = UNSET
    meter_id: DeviceId | UnsetType = UNSET
    started_at: Timestamp | UnsetType = UNSET
    ended_at: Timestamp | UnsetType | None = UNSET


class Values(msgspec.Struct, rename="camel", frozen=True):
    """What of a session can change."""

    vehicle_id: str
    meter_id: str
    started_at: datetime
    ended_at: datetime | None


class Change(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """An entry of the audit trail; nothing was before a new session, nothing is after a deleted one."""

    change_id: int
    changed_at: datetime
    action: str
    source: str
    before: Values | None
    after: Values | None


class NewAssignment(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A standing assignment as it is sent: the vehicle's meter, or none, from `since` (or now) on."""

    meter_id: DeviceId | None
    since: Timestamp | None = None


class Assignment(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A standing assignment as it is told: the open session behind it, or nulls where there is none."""

    vehicle_id: str
    meter_id: str | None
    since: datetime | None
    session_id: str | None


class TimeFault(Exception):  # noqa: N818 - not raised for a defect, but to be told
    """Raised for times that no session can have: the field to blame in JSON, a code, a message."""

    def __init__(self, field: str, code: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.code = code
        self.message = message


def check_times(started_at: datetime | None, ended_at: datetime | None) -> None:
    """Raise TimeFault for a time beyond the calendar, and for a session that does not end after its start."""
    for name, moment in (("startedAt", started_at), ("endedAt", ended_at)):
        if moment is not None and not _EARLIEST <= moment <= _LATEST:
            raise TimeFault(name, "out_of_range", f'"{name}" lies outside the years 1900 to 2999')
    if started_at is not None and ended_at is not None and ended_at <= started_at:
        code = "no_duration" if ended_at == started_at else "ends_before_start"
        raise TimeFault("endedAt", code, '"endedAt" must lie after "startedAt"')


def derived_id(vehicle_id: str, meter_id: str, started_at: datetime) -> str:
    """Give the id of a session that came without one, so that the same session again is recognised.

    The end is left out: a session that was open is still the same once it has ended.
    """
    start = started_at.astimezone(UTC).isoformat()
    return str(uuid.uuid5(_NAMESPACE, f"{vehicle_id}\n{meter_id}\n{start}"))
