"""A dismissal: letters for which there is nothing to be done are closed, and count as resolved from then on.

Malformed JSON, conflicts and lines of CSV files never become good by trying them again. Without a dismissal
they would wait until they are pruned, and whoever watches what waits would learn to look away.
"""

from __future__ import annotations

import msgspec

from service import log
from service.dead_letters.letter import Filters
from service.dead_letters.store import Letters


class Dismissal(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """How many letters were dismissed, and how many were not: not there, or resolved already.

    `next` is where to go on (as `after`) when there are `more`.
    """

    dismissed: int = 0
    skipped: int = 0
    more: bool = False
    next: int | None = None


async def dismiss_those(letters: Letters, ids: list[int]) -> Dismissal:
    """Dismiss letters by their ids. Raises psycopg.Error when the database is away."""
    wanted = list({*ids})
    dismissed = await letters.dismiss(wanted)
    _log(dismissed)
    return Dismissal(dismissed=dismissed, skipped=len(wanted) - dismissed)


async def dismiss_matching(
    letters: Letters, filters: Filters, limit: int, *, after: int | None = None
) -> Dismissal:
    """Dismiss the newest letters that wait and match, at most so many of those before `after`."""
    # Not the oldest, so that what comes meanwhile is not dismissed unseen.
    found = await letters.find(filters, limit + 1, resolved=False, after=after)
    chosen = [letter.dead_letter_id for letter in found[:limit]]
    dismissed = await letters.dismiss(chosen)
    _log(dismissed)
    more = len(found) > limit
    return Dismissal(
        dismissed=dismissed,
        skipped=len(chosen) - dismissed,
        more=more,
        next=chosen[-1] if more else None,
    )


def _log(dismissed: int) -> None:
    if dismissed:
        log.get("dead_letters").info("dead_letters_dismissed", dismissed=dismissed)
