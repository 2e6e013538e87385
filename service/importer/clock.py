"""Timestamps of a file: text to an instant, local times without a zone included.

A local time can mean no instant (skipped in spring) or two (repeated in autumn). A skipped one is
refused. A repeated one is settled by the order of the file: the readings of a device run forward in
time (or backward, in a file that has the newest first), so a step against that order within the
repeated hour starts its second pass. Where order cannot tell, the time is refused rather than guessed:
at the very start of a device's readings, and where they jump about. Sessions come in no order: they ask
for both instants, and each is settled by its own other end.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from service.errors import ImportFileError
from service.importer.refusal import CellError

FIELD: Final = "timestamp"

# YYYY-MM-DDTHH:MM or its basic form with zone: a date alone is not an instant.
_SHORTEST_ISO: Final = 16


def zone_of(name: str) -> ZoneInfo:
    """Give a time zone by its IANA name; raises ImportFileError for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ImportFileError(f"--tz {name}: unknown zone; write it like Europe/Paris or UTC") from None


def parser_of(time_format: str | None) -> Callable[[str], datetime]:
    """Give what reads a timestamp: ISO 8601, a strptime format, or `unix` and `unix-ms` (since 1970).

    The parser raises ValueError. Raises ImportFileError for a format that does not hold a full date.
    """
    if time_format is None:
        return _parse_iso
    if time_format in ("unix", "unix-ms"):
        divisor = 1000 if time_format == "unix-ms" else 1
        return lambda text: _parse_unix(text, divisor)
    sample = datetime(2007, 10, 4, 13, 5, 6, tzinfo=UTC)
    try:
        parsed = datetime.strptime(sample.strftime(time_format), time_format)  # noqa: DTZ007 - a naive result is fine
    except ValueError as error:
        raise ImportFileError(f"--time-format {time_format!r}: {error}") from None
    if parsed.date() != sample.date():
        raise ImportFileError(f"--time-format {time_format!r} does not hold year, month and day")
    return lambda text: datetime.strptime(text, time_format)  # noqa: DTZ007 - Clock adds the zone


def _parse_iso(text: str) -> datetime:
    if len(text) < _SHORTEST_ISO:
        raise ValueError("a date alone is not a timestamp")
    return datetime.fromisoformat(text)


def _parse_unix(text: str, divisor: int) -> datetime:
    try:
        return datetime.fromtimestamp(float(text) / divisor, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from None


class Clock:
    """Reads the timestamps of one file in its order; keeps the last two instants of each device.

    `field` is the name in JSON that a refused timestamp is blamed on.
    """

    def __init__(
        self, time_format: str | None = None, zone: ZoneInfo | None = None, field: str = FIELD
    ) -> None:
        self._parse = parser_of(time_format)
        self._field = field
        self._format = time_format
        self._zone = zone
        self._seen: dict[str, tuple[datetime, datetime | None]] = {}

    def read(self, device_id: str, text: str) -> datetime:
        """Give the instant that `text` means for that device; raises CellError."""
        time = self._parsed(text)
        # An offset in the text says more than the zone of the file.
        return time if time.utcoffset() is not None else self._resolve(device_id, time)

    def instants(self, text: str) -> tuple[datetime, datetime]:
        """Give the two instants that `text` can mean, whatever else is in the file; raises CellError.

        They are the same unless it is in a repeated hour.
        """
        time = self._parsed(text)
        return (time, time) if time.utcoffset() is not None else self._passes(time)

    def ambiguous(self, witness: str) -> CellError:
        """Give the error for a time in a repeated hour; `witness` is what cannot tell which pass it was."""
        message = f"the hour occurs twice in {self._zone}, and {witness} does not tell which"
        return CellError(self._field, "ambiguous_time", message)

    def _parsed(self, text: str) -> datetime:
        try:
            return self._parse(text)
        except ValueError:
            wanted = self._format or "2026-01-31T12:00:00Z"
            message = f"{text[:80]!r} is not a timestamp of the form {wanted}"
            raise CellError(self._field, "wrong_type", message) from None

    def _passes(self, local: datetime) -> tuple[datetime, datetime]:
        """Give the instants, in UTC, of a time without zone: one for each pass of a repeated hour."""
        if self._zone is None:
            raise CellError(
                self._field, "naive_timestamp", f"{local} has no zone: say with --tz where it was local time"
            )
        zoned = local.replace(tzinfo=self._zone)
        before, after = zoned.utcoffset(), zoned.replace(fold=1).utcoffset()
        if before is None or after is None or before < after:
            raise CellError(
                self._field, "nonexistent_time", f"{local} was skipped by the clock change in {self._zone}"
            )
        try:
            return (local - before).replace(tzinfo=UTC), (local - after).replace(tzinfo=UTC)
        except OverflowError:
            raise CellError(self._field, "out_of_range", f"{local} is out of range") from None

    def _resolve(self, device_id: str, local: datetime) -> datetime:
        """Give the instant, in UTC, of a time without zone."""
        first, second = self._passes(local)
        instant = first if first == second else self._choose(device_id, first, second)
        last, _ = self._seen.get(device_id, (None, None))
        if instant != last:
            self._seen[device_id] = (instant, last)
        return instant

    def _choose(self, device_id: str, first: datetime, second: datetime) -> datetime:
        """Choose between the two passes of a repeated hour (PEP 495: fold 0 and 1)."""
        last, earlier = self._seen.get(device_id, (None, None))
        if last is not None:
            forward = earlier < last if earlier is not None else last <= second
            near, far = (first, second) if forward else (second, first)
            # The same time again is a repeated line, unless readings are as far apart as the passes are.
            sparse = earlier is not None and abs(last - earlier) >= second - first
            if (near > last if forward else near < last) or (near == last and not sparse):
                return near
            if (far >= last) if forward else (far <= last):
                return far
        raise self.ambiguous("the order of lines")
