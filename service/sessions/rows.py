"""Rows of a file to sessions: which columns (or constants) are which field, and why a row is no session."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from service.errors import ImportFileError
from service.importer.clock import Clock, zone_of
from service.importer.columns import (
    Columns,
    ReadNumber,
    ReadText,
    id_reader,
    is_device_id,
    number_reader,
    text_reader,
)
from service.importer.dialect import Row
from service.importer.refusal import CellError, Refusal
from service.sessions.model import Session, TimeFault, check_times, derived_id

# An id of several columns, such as charge point and connector: no id of one part is likely to hold it.
_ID_JOINT: Final = ":"

# Columns taken when no option names one: the names in JSON and in the database.
_USUAL: Final = {
    "vehicle_id": ("vehicleId", "vehicle_id"),
    "meter_id": ("meterId", "meter_id"),
    "session_id": ("sessionId", "session_id"),
    "start": ("startedAt", "started_at"),
    "end": ("endedAt", "ended_at"),
}


class _Energy(msgspec.Struct):
    energy: float


class SessionMapping(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say about columns; None where they say nothing.

    Ids and times are a column, or several joined by commas (an id also a constant `=VALUE`). Without a
    column of session ids, a session's id follows from its vehicle, meter and start. `max_hours` refuses
    longer sessions; `open_ends` takes a row without an end as an open session.
    """

    vehicle_id: str | None = None
    meter_id: str | None = None
    session_id: str | None = None
    start: str | None = None
    end: str | None = None
    time_format: str | None = None
    tz: str | None = None
    energy: str | None = None
    decimal_comma: bool = False
    max_hours: float | None = None
    open_ends: bool = False


class SessionReader:
    """A mapping bound to the header of a file; what a row means depends on nothing else in the file.

    Raises ImportFileError for a mapping that this header cannot fulfil.
    """

    def __init__(self, mapping: SessionMapping, header: Sequence[str]) -> None:
        self._columns = Columns(header)
        self._mapping = mapping
        zone = zone_of(mapping.tz) if mapping.tz else None
        self._start_clock = Clock(mapping.time_format, zone, "startedAt")
        self._end_clock = Clock(mapping.time_format, zone, "endedAt")
        self._vehicle = self._id_reader("vehicle_id", "vehicleId")
        self._meter = self._id_reader("meter_id", "meterId")
        self._session = None
        if mapping.session_id is not None or self._columns.first_of(_USUAL["session_id"]):
            self._session = self._id_reader("session_id", "sessionId")
        start, end = self._parts("start"), self._parts("end")
        self._start = text_reader(self._columns, start, "--start", "startedAt")
        self._end = text_reader(self._columns, end, "--end", "endedAt")
        self._end_positions = [self._columns.position(name, "--end") for name in end]
        self._energy = self._energy_reader()

    def read(self, row: Row | None) -> Session | Refusal:
        """Turn a row into a session, or say why it is none: the first reason, in the order read here."""
        try:
            return self._read(self._columns.check(row))
        except CellError as error:
            return Refusal(error.field, error.code, error.message)
        except TimeFault as fault:
            return Refusal(fault.field, fault.code, fault.message)

    def _read(self, row: Row) -> Session:
        vehicle_id, meter_id = self._vehicle(row), self._meter(row)
        session_id = self._session(row) if self._session else None
        started_at, ended_at = self._times(row)
        check_times(started_at, ended_at)
        self._check_energy(row)
        self._check_length(started_at, ended_at)
        return Session(
            session_id=session_id or derived_id(vehicle_id, meter_id, started_at),
            vehicle_id=vehicle_id,
            meter_id=meter_id,
            started_at=started_at,
            ended_at=ended_at,
        )

    def _is_open(self, row: Row) -> bool:
        """Tell whether the row has no end at all and may have none; half an end is a mistake."""
        return self._mapping.open_ends and not any(row[position].strip() for position in self._end_positions)

    def _times(self, row: Row) -> tuple[datetime, datetime | None]:
        """Give start and end. One that is in a repeated hour is settled by the other one, or not at all.

        Where the other one is certain, and lies between the two instants that are possible, only one of these
        makes a session. Other rows tell nothing: the same one must mean the same session in any file.
        """
        start, late_start = self._start_clock.instants(self._start(row))
        if self._is_open(row):
            if start != late_start:
                raise self._start_clock.ambiguous("a session without an end")
            return start, None
        early_end, end = self._end_clock.instants(self._end(row))
        if start != late_start and not (early_end == end and start < end <= late_start):
            raise self._start_clock.ambiguous("the end")
        if early_end != end and not early_end <= start < end:
            raise self._end_clock.ambiguous("the start")
        return start, end

    def _check_energy(self, row: Row) -> None:
        if self._energy is None:
            return
        try:
            energy = self._energy(row)
        except CellError as error:
            # Not every row has an energy, and a session needs none.
            if error.code == "missing":
                return
            raise
        if energy < 0:
            raise CellError("energy", "negative_energy", f"{energy:g} is less than nothing")

    def _check_length(self, started_at: datetime, ended_at: datetime | None) -> None:
        longest = self._mapping.max_hours
        if longest is not None and ended_at is not None and ended_at - started_at > timedelta(hours=longest):
            raise CellError("endedAt", "too_long", f"the session lasts longer than {longest:g} hours")

    def _named(self, name: str) -> str:
        """Give what an option says or, if it says nothing, the column with a usual name."""
        text: str | None = getattr(self._mapping, name) or self._columns.first_of(_USUAL[name])
        if text is None:
            raise ImportFileError(f"say with {_option(name)} which column to take; {self._columns.listed()}")
        return text

    def _parts(self, name: str) -> list[str]:
        text = self._named(name)
        return [text] if text in self._columns else [part.strip() for part in text.split(",")]

    def _id_reader(self, name: str, field: str) -> ReadText:
        text, option = self._named(name), _option(name)
        if text.startswith("=") or text in self._columns or "," not in text:
            if name == "session_id" and text not in self._columns:
                raise ImportFileError(f"{option} {text}: no such column; {self._columns.listed()}")
            read = id_reader(self._columns, text, option, field)
        else:
            read = text_reader(self._columns, self._parts(name), option, field, joint=_ID_JOINT)

        def read_checked(row: Row) -> str:
            found = read(row)
            if not is_device_id(found):
                message = f"the id {found[:80]!r} must be 1 to 64 characters of A-Z a-z 0-9 . _ : -"
                raise CellError(field, "bad_id", message)
            return found

        return read_checked

    def _energy_reader(self) -> ReadNumber | None:
        if self._mapping.energy is None:
            return None
        # A constant would say nothing about any row.
        self._columns.position(self._mapping.energy, "--energy")
        [field] = msgspec.structs.fields(_Energy)
        comma = self._mapping.decimal_comma
        return number_reader(self._columns, self._mapping.energy, "--energy", field, decimal_comma=comma)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
