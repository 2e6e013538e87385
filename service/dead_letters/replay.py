"""A replay: letters are tried again, portion by portion, and each is marked with what came of it.

What is in a letter is committed first and the letter marked afterwards. So a crash in between, or two replays
at once, cost a second try that finds everything stored: nothing is stored twice, and no mark says more than
is true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from service import log
from service.dead_letters.letter import Filters, Letter, Sized, portions
from service.dead_letters.retry import Verdict
from service.dead_letters.store import PORTION_BYTES, PORTION_LETTERS, Letters

_RESULTS_MAX: Final = 500

# Tries a letter again and gives what came of it.
Take = Callable[[Letter], Awaitable[Verdict]]


class Result(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What came of one letter, in a word and in readings, and why it was refused again or skipped."""

    id: int
    result: str
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    code: str | None = None
    message: str | None = None


class Report(msgspec.Struct, rename="camel", kw_only=True):
    """What came of a replay: `replayed`, `resolved` and `skipped` count letters, the others readings in them.

    `next` is where to go on (as `after`) when there are `more`.
    """

    replayed: int = 0
    resolved: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    skipped: int = 0
    results: list[Result] = []
    more: bool = False
    next: int | None = None

    def add(self, letter_id: int, verdict: Verdict) -> None:
        """Count a letter; the first some hundred are told one by one."""
        if verdict.skipped is None:
            self.replayed += 1
            self.resolved += not verdict.refused
        else:
            self.skipped += 1
        self.stored += verdict.stored
        self.duplicates += verdict.duplicates
        self.refused += verdict.refused
        if len(self.results) < _RESULTS_MAX:
            told = Result(
                id=letter_id,
                result=verdict.result,
                stored=verdict.stored,
                duplicates=verdict.duplicates,
                refused=verdict.refused,
                code=verdict.code,
                message=verdict.skipped or verdict.message,
            )
            self.results.append(told)

    def joined(self, rest: Report) -> Report:
        """Give both together, where `rest` came after this one."""
        return Report(
            replayed=self.replayed + rest.replayed,
            resolved=self.resolved + rest.resolved,
            stored=self.stored + rest.stored,
            duplicates=self.duplicates + rest.duplicates,
            refused=self.refused + rest.refused,
            skipped=self.skipped + rest.skipped,
            results=[*self.results, *rest.results][:_RESULTS_MAX],
            more=rest.more,
            next=rest.next,
        )


class Replay:
    """Replays letters by id or by what they have in common; a `dry_run` marks none."""

    def __init__(self, letters: Letters, take: Take, *, dry_run: bool = False) -> None:
        self._letters = letters
        self._take = take
        self._dry_run = dry_run

    async def those(self, ids: list[int]) -> Report:
        """Replay letters by their ids. What has to be raised when the database is away: see `Again.take`."""
        wanted = sorted(set(ids))
        found = await self._letters.sizes(wanted)
        report = Report()
        for missing in sorted({*wanted} - {letter.dead_letter_id for letter in found}):
            report.add(missing, Verdict(skipped="there is no such dead letter"))
        await self._run(found, report)
        return report

    async def matching(self, filters: Filters, limit: int, *, after: int | None = None) -> Report:
        """Replay the oldest letters that wait, at most so many; see `those`."""
        found = await self._letters.to_replay(filters, limit + 1, after=after)
        report = Report(more=len(found) > limit)
        found = found[:limit]
        if report.more:
            report.next = found[-1].dead_letter_id
        await self._run(found, report)
        return report

    async def _run(self, found: list[Sized], report: Report) -> None:
        for ids in portions(found, PORTION_LETTERS, PORTION_BYTES):
            await self._portion(ids, report)
        if report.replayed and not self._dry_run:
            log.get("dead_letters").info(
                "dead_letters_replayed",
                replayed=report.replayed,
                resolved=report.resolved,
                refused=report.replayed - report.resolved,
            )

    async def _portion(self, ids: list[int], report: Report) -> None:
        letters = await self._letters.get(ids)
        # Together, so that the pipeline makes large batches of them.
        verdicts = await asyncio.gather(*(self._take(letter) for letter in letters), return_exceptions=True)
        marks: dict[int, str | None] = {}
        failed: BaseException | None = None
        for letter, verdict in zip(letters, verdicts, strict=True):
            if isinstance(verdict, BaseException):
                failed = failed or verdict
                continue
            report.add(letter.dead_letter_id, verdict)
            if verdict.skipped is None:
                marks[letter.dead_letter_id] = verdict.error
        if failed is not None:
            # The letters whose fate is known are not marked either: to try them again costs little.
            raise failed
        if not self._dry_run:
            await self._letters.mark(marks)
