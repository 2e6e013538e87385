"""What became of a file's lines: counts, reasons, and every refused line for those who want them all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from service.errors import ImportFileError

_LINES_SHOWN: Final = 8
_DEVICES_SHOWN: Final = 5


class RejectedLine(NamedTuple):
    """A refused line: its number in the file (from 1, header included), why, and the line itself."""

    line: int
    field: str | None
    code: str
    message: str
    raw: bytes


OnRejected = Callable[[RejectedLine], None]


class Reason(msgspec.Struct):
    """One reason for refusals: the message of the first, how many, and the numbers of the first lines."""

    field: str | None
    code: str
    message: str
    count: int = 0
    lines: list[int] = []

    def line(self) -> str:
        """Give the reason in one line of text."""
        field = f" ({self.field})" if self.field else ""
        numbers = ", ".join(map(str, self.lines)) + (", ..." if self.count > len(self.lines) else "")
        word = "lines" if self.count > 1 else "line"
        return f"{self.count} x {self.code}{field}: {self.message}; {word} {numbers}"


class ImportReport(msgspec.Struct, kw_only=True):
    """Counts over lines of data: lines = accepted + duplicates + rejected.

    `rejected` includes `conflicts`, and those `known` as dead letters from an import before. `devices` are
    those of all readings that could be read.
    """

    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    conflicts: int = 0
    known: int = 0
    dry_run: bool = False
    devices: set[str] = set()
    reasons: dict[tuple[str | None, str], Reason] = {}

    def reject(self, line: RejectedLine) -> None:
        """Count a refused line under its reason; memory grows with the reasons, not with the lines."""
        self.rejected += 1
        self.conflicts += line.code == "conflict"
        key = line.field, line.code
        reason = self.reasons.get(key)
        if reason is None:
            reason = self.reasons[key] = Reason(line.field, line.code, line.message)
        reason.count += 1
        if len(reason.lines) < _LINES_SHOWN:
            reason.lines.append(line.line)

    def summary(self) -> str:
        """Give the counts in one line."""
        return (
            f"read {self.lines} lines: accepted {self.accepted}, duplicates {self.duplicates}, "
            f"rejected {self.rejected} (conflicts {self.conflicts})"
            + (f", {self.known} of them dead letters already" if self.known else "")
            + (" - dry run, nothing was stored" if self.dry_run else "")
        )

    def details(self) -> list[str]:
        """Give the devices, then each reason with its lines, the most frequent first, as lines of text."""
        # Named, because a typing error in --meter-id is an id as well.
        shown = ", ".join(sorted(self.devices)[:_DEVICES_SHOWN])
        more = len(self.devices) - _DEVICES_SHOWN
        devices = [f"devices: {shown}{f' and {more} more' if more > 0 else ''}"] if self.devices else []
        return devices + [
            reason.line() for reason in sorted(self.reasons.values(), key=lambda one: -one.count)
        ]


@contextmanager
def rejects_file(path: Path) -> Iterator[OnRejected]:
    """Write refused lines (line, field, code, message, raw) in the order of the file.

    NDJSON where the name ends in .ndjson or .jsonl, otherwise CSV. What the file held before is gone with the
    first line, or once all is well without one: a file that cannot be imported at all changes nothing.
    """
    is_new = not path.exists()
    try:
        file = path.open("a", encoding="utf-8", newline="")
    except OSError as error:
        raise ImportFileError(f"--report {path}: {error.strerror or error}") from None
    with file:
        writer = csv.DictWriter(file, RejectedLine._fields)
        as_json = path.suffix.lower() in {".ndjson", ".jsonl"}
        begun = False

        def begin() -> None:
            nonlocal begun
            if begun:
                return
            begun = True
            # Not a device or a pipe, which cannot be cut.
            if path.is_file():
                file.truncate(0)
            if not as_json:
                writer.writeheader()

        def write(line: RejectedLine) -> None:
            begin()
            shown = line._asdict() | {"raw": line.raw.decode(errors="backslashreplace")}
            if as_json:
                file.write(json.dumps(shown, ensure_ascii=False) + "\n")
            else:
                writer.writerow(shown)

        try:
            yield write
        except BaseException:
            if is_new and not begun:
                path.unlink(missing_ok=True)
            raise
        begin()
