"""Routes of dead letters: list, one, how many of each, try again, and dismiss."""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, PathParameter, QueryParameter, SkipValidation
from msgspec import Meta

from service.dead_letters import openapi
from service.dead_letters.dismiss import dismiss_matching, dismiss_those
from service.dead_letters.filters import ID_MAX, STATES, filters, letter_id
from service.dead_letters.letter import portions
from service.dead_letters.replay import Replay, Take
from service.dead_letters.store import PORTION_BYTES, Letters
from service.web import parameters
from service.web.answers import answer, cut_page
from service.web.bodies import read_json
from service.web.principal import ADMIN, KEY_SECURITY, needs
from service.web.problems import Problem

AnyRequest = Request[Any, Any, Any]
_PAGE_MAX: Final = 1000
_PAGE_DEFAULT: Final = "100"

LetterId = Annotated[int, Meta(ge=1, le=ID_MAX)]


class ReplayRequest(msgspec.Struct, rename="camel", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to try again: letters by id, or those that wait and match the filters, the oldest first."""

    ids: Annotated[list[LetterId], Meta(min_length=1, max_length=5000)] | None = None
    kind: str | None = None
    device_id: str | None = None
    code: str | None = None
    origin: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    after: LetterId | None = None


class DismissRequest(ReplayRequest, frozen=True):
    """What to dismiss: letters by id, those that wait and match the filters, or, if it says so, `all`."""

    all: bool = False


class DeadLetters(NamedTuple):
    """What the routes need: the letters, and what tries one again."""

    letters: Letters
    take: Take


# We made it: nothing to validate on each request.
Injected = NamedDependency[SkipValidation[DeadLetters]]


@get(
    "/v1/dead-letters",
    operation_class=openapi.LIST,
    opt=needs(ADMIN),
    summary="What was refused, newest first",
)
async def list_dead_letters(
    dead_letters: Injected,
    kind: FromQuery[str | None] = None,
    device_id: Annotated[str | None, QueryParameter(name="deviceId")] = None,
    code: FromQuery[str | None] = None,
    origin: FromQuery[str | None] = None,
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    state_: Annotated[str | None, QueryParameter(name="state")] = None,
    limit: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give what waits (`state`: waiting, resolved, all), received in [from, to), by what was wrong with it.

    `origin` is a prefix such as `mqtt:` or `http:`. A page holds at most `limit` letters (100 unless asked)
    and 8 MiB of them, so it may be short; `next` goes into `after` and is null on the last page.
    """
    size = parameters.page(_PAGE_DEFAULT if limit is None else limit, None, _PAGE_MAX)["page_size"]
    asked = filters(kind=kind, device_id=device_id, code=code, origin=origin, from_=from_, to=to)
    resolved = parameters.choice("state", state_, STATES, "waiting")
    last = None if after is None else letter_id("after", after)
    letters = dead_letters.letters
    found = await letters.find(asked, size + 1, resolved=resolved, after=last)
    page, at_end = cut_page(found, size)
    fitting = next(iter(portions(page, size, PORTION_BYTES)), [])
    told = [letter.told() for letter in reversed(await letters.get(fitting))]
    more = at_end is not None or len(fitting) < len(page)
    return answer({"deadLetters": told, "next": fitting[-1] if more else None})


@get(
    "/v1/dead-letters/summary",
    operation_class=openapi.SUMMARY,
    opt=needs(ADMIN),
    summary="How much was refused, by code",
)
async def summarise_dead_letters(dead_letters: Injected) -> Response[bytes]:
    """Count letters by code and kind: all, those that wait, their bytes, the oldest and the newest."""
    return answer({"groups": await dead_letters.letters.summary()})


@get(
    "/v1/dead-letters/{letterId:str}",
    operation_class=openapi.GET,
    opt=needs(ADMIN),
    summary="One dead letter",
)
async def get_dead_letter(
    dead_letters: Injected, letter_id_: Annotated[str, PathParameter(name="letterId")]
) -> Response[bytes]:
    """Give a letter by its id, with all the bytes that were kept: as text, or in Base64 if they are none."""
    wanted = letter_id("letterId", letter_id_)
    found = await dead_letters.letters.get([wanted])
    if not found:
        message = f"there is no dead letter {wanted}: it never was, or has been pruned"
        raise Problem(404, "unknown_dead_letter", message)
    return answer(found[0].told())


@post(
    "/v1/dead-letters/replay",
    operation_class=openapi.REPLAY,
    opt=needs(ADMIN),
    status_code=200,
    summary="Try again what was refused",
)
async def replay_dead_letters(request: AnyRequest, dead_letters: Injected) -> Response[bytes]:
    """Decode letters under today's rules and store what is good; each is marked with what came of it.

    Letters by `ids`, or those that wait and match the filters, oldest first, at most `limit` (1,000). Safe to
    repeat: what is stored already is a duplicate. `replayed`, `resolved` and `skipped` count letters,
    `stored`, `duplicates` and `refused` the readings in them; `results` tells the first 500 letters. While
    there are `more`, `next` goes into `after`. A 503 may come after a part is done: send the request again.
    """
    asked = await read_json(request, ReplayRequest)
    replay = Replay(dead_letters.letters, dead_letters.take)
    by = _filters_of(asked)
    if asked.ids is not None:
        return answer(await replay.those(asked.ids))
    return answer(await replay.matching(filters(**by), asked.limit, after=asked.after))


@post(
    "/v1/dead-letters/dismiss",
    operation_class=openapi.DISMISS,
    opt=needs(ADMIN),
    status_code=200,
    summary="Close what can never be stored",
)
async def dismiss_dead_letters(request: AnyRequest, dead_letters: Injected) -> Response[bytes]:
    """Close letters that wait: they count as resolved, with `replayError` "dismissed", and store nothing.

    Letters by `ids`, or those that match the filters, or `all`: newest first, at most `limit` (1,000). Safe
    to repeat: `skipped` counts ids that are resolved already or not there. While there are `more`, `next`
    goes into `after`. A dismissed letter is tried again only when a replay names its id.
    """
    asked = await read_json(request, DismissRequest)
    by = _filters_of(asked)
    some = asked.ids is not None or any(value is not None for value in by.values())
    if asked.all == some:
        if some:
            raise Problem(400, "ambiguous", "give ids or filters, or all, not both", field="all")
        message = 'say which letters: ids, filters, or "all": true for all that wait'
        raise Problem(400, "missing", message, field="all")
    if asked.ids is not None:
        return answer(await dismiss_those(dead_letters.letters, asked.ids))
    return answer(await dismiss_matching(dead_letters.letters, filters(**by), asked.limit, after=asked.after))


def _filters_of(asked: ReplayRequest) -> dict[str, str | None]:
    """Give the filters of a request; raises Problem 400 where it names letters by id, too."""
    by = {name: getattr(asked, name) for name in ("kind", "device_id", "code", "origin", "from_", "to")}
    if asked.ids is not None and any(value is not None for value in (*by.values(), asked.after)):
        raise Problem(400, "ambiguous", "give either ids or filters, not both", field="ids")
    return by


def router(letters: Letters, take: Take) -> Router:
    """Give the routes of dead letters; `take` tries one again."""
    dead_letters = DeadLetters(letters, take)
    return Router(
        path="/",
        route_handlers=[
            list_dead_letters,
            summarise_dead_letters,
            get_dead_letter,
            replay_dead_letters,
            dismiss_dead_letters,
        ],
        dependencies={"dead_letters": Provide(lambda: dead_letters, sync_to_thread=False)},
        security=KEY_SECURITY,
        tags=["Dead letters"],
    )
