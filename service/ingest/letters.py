"""What is kept of refusals: a dead letter each; of one payload some hundred, and one more for all the rest.

A reading of two bytes makes a row of some hundred, so a letter for each of 50,000 would let a payload of a
few hundred bytes, gzipped, take 15 MB of disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from service.ingest.buffer import Submission
from service.ingest.outcome import Rejection

MANY_REFUSED: Final = "many_refused"
_LETTERS_EACH: Final = 100


class Letters(NamedTuple):
    """Letters as one list per column, as `insert_dead_letters` takes them; whose each is, and of how many."""

    columns: dict[str, list[Any]]
    owners: list[tuple[Submission, int]]


def letters_of(refused: Iterable[tuple[Submission, Rejection]]) -> Letters:
    """Give the letters of refusals."""
    by_submission: dict[int, tuple[Submission, list[Rejection]]] = {}
    for submission, rejection in refused:
        by_submission.setdefault(id(submission), (submission, []))[1].append(rejection)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("origin", "kind", "device_id", "code", "field", "message", "raw", "raw_size")
    }
    owners: list[tuple[Submission, int]] = []
    for submission, rejections in by_submission.values():
        for rejection in rejections[:_LETTERS_EACH]:
            raw = rejection.raw[: submission.raw_limit]
            _add(columns, submission, rejection, raw, len(rejection.raw))
            owners.append((submission, 1))
        if rest := rejections[_LETTERS_EACH:]:
            raw, size = _together(rest, submission)
            _add(columns, submission, _word(rest), raw, size)
            owners.append((submission, len(rest)))
    return Letters(columns, owners)


def _add(
    columns: dict[str, list[Any]], submission: Submission, rejection: Rejection, raw: bytes, size: int
) -> None:
    columns["origin"].append(submission.origin.replace("\0", ""))
    columns["kind"].append(rejection.kind)
    columns["device_id"].append(rejection.device_id)
    columns["code"].append(rejection.code)
    columns["field"].append(rejection.field)
    columns["message"].append(rejection.message.replace("\0", ""))
    columns["raw"].append(raw)
    columns["raw_size"].append(size)


def _word(rest: list[Rejection]) -> Rejection:
    first = rest[0]
    return Rejection(
        index=first.index,
        code=MANY_REFUSED,
        message=f"{len(rest)} more readings of this payload were refused, here together; the first of them:"
        f" {first.code}: {first.message}",
    )


def _together(rest: list[Rejection], submission: Submission) -> tuple[bytes, int]:
    """Give refused readings as one payload of the shape that they came in, cut off, and its whole size."""
    opening, between, closing = (b"", b"\n", b"") if submission.decoded.lines else (b"[", b",", b"]")
    size = len(opening) + len(closing) + len(rest) - 1 + sum(len(rejection.raw) for rejection in rest)
    taken: list[bytes] = []
    room = submission.raw_limit
    for rejection in rest:
        if room < 0:
            break
        taken.append(rejection.raw)
        room -= len(rejection.raw) + 1
    return (opening + between.join(taken) + closing)[: submission.raw_limit], size
