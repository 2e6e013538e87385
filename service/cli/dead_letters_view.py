"""How dead letters, and what came of a replay, are told to people in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from service.dead_letters.letter import Letter
from service.dead_letters.replay import Report
from service.log import printable
from service.web.answers import rfc3339

_TOLD: Final = 20
_HEX_WIDTH: Final = 16


def hexdump(raw: bytes) -> Iterator[str]:
    """Give bytes line by line: offset, hexadecimal, and what of it is ASCII."""
    for start in range(0, len(raw), _HEX_WIDTH):
        line = raw[start : start + _HEX_WIDTH]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        yield f"{start:08x}  {line.hex(' '):<{_HEX_WIDTH * 3}} {letters}"


def description(letter: Letter) -> Iterator[str]:
    """Give a letter with all its bytes, line by line: as text, or in hexadecimal where they are none."""
    kept = f", of which the first {len(letter.raw):,} were kept" if letter.truncated else ""
    device = f"{letter.kind or ''} {letter.device_id or ''}".strip()
    last = f", last {rfc3339(letter.replayed_at)}" if letter.replayed_at else ""
    for name, value in (
        ("id", letter.dead_letter_id),
        ("received", rfc3339(letter.received_at)),
        ("origin", letter.origin),
        ("device", device or None),
        ("reason", f"{letter.code}: {letter.message}"),
        ("field", letter.field),
        ("replays", f"{letter.replays}{last}"),
        ("refused again", None if letter.dismissed else letter.replay_error),
        ("dismissed" if letter.dismissed else "resolved", rfc3339(letter.resolved_at)),
        ("bytes", f"{letter.raw_size:,}{kept}"),
    ):
        if value is not None:
            yield f"{name:<14} {printable(str(value))}"
    yield ""
    if letter.text is None:
        yield from hexdump(letter.raw)
    else:
        yield from (printable(line) for line in letter.text.split("\n"))


def told_in_words(report: Report, *, dry_run: bool) -> Iterator[str]:
    """Give what came of a replay, line by line: the counts, then the first letters that say something."""
    if dry_run:
        yield (
            f"{report.replayed} letters can be tried: {report.stored} readings are good by today's rules, "
            f"{report.refused} are refused still; {report.skipped} letters cannot be tried"
        )
    else:
        yield (
            f"{report.replayed} letters tried again, {report.resolved} of them resolved: "
            f"{report.stored} readings stored, {report.duplicates} were stored already, "
            f"{report.refused} refused again; {report.skipped} letters skipped"
        )
    told = [result for result in report.results if result.message is not None]
    for result in told[:_TOLD]:
        yield printable(f"  {result.id} {result.result}: {result.message}")
    if reasons := Counter(result.code or "skipped" for result in told[_TOLD:]):
        yield f"  and {', '.join(f'{count} x {code}' for code, count in sorted(reasons.items()))}"
    if report.more:
        yield "there are more: --limit takes more"
