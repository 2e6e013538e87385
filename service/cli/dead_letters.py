"""`fleetwatt dead-letters`: what was refused: list, show, count, export, try again, and dismiss."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.database import with_pool
from service.cli.dead_letters_view import description, told_in_words
from service.cli.options import data_dir_option, json_option
from service.dead_letters.dismiss import Dismissal, dismiss_matching, dismiss_those
from service.dead_letters.filters import KINDS, STATES, filters, letter_id
from service.dead_letters.letter import Filters, Letter
from service.dead_letters.replay import Replay, Report
from service.dead_letters.retry import Again, submit_to
from service.dead_letters.store import Letters
from service.errors import FleetwattError
from service.ingest.pipeline import Pipeline
from service.log import printable
from service.settings import Settings
from service.web.answers import rfc3339

T = TypeVar("T")

# Letters of one call of a replay or a dismissal; the command goes on until it has them all.
_AT_ONCE: Final = 1000
_WIDE: Final = 10_000


def _filter_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--to", metavar="TIME", help="Only those received before then."),
        click.option("--from", "from_", metavar="TIME", help="Only those received then or later."),
        click.option("--origin", metavar="PREFIX", help="Only those from there, such as mqtt: or http:/v1/."),
        click.option("--code", help="Only those refused for this reason, such as future_timestamp."),
        click.option("--device-id", help="Only this device's."),
        click.option("--kind", type=click.Choice(list(KINDS)), help="Only meters', or only vehicles'."),
    ):
        command = option(command)
    return command


_state_option = click.option(
    "--state",
    type=click.Choice(list(STATES)),
    default="waiting",
    show_default=True,
    help="Those that wait, those that are resolved (stored by a replay, or dismissed), or all.",
)


@click.group("dead-letters")
def command() -> None:
    """Look at what was refused, with its reason and its bytes; try it again after a fix, or dismiss it."""


@command.command("list")
@_filter_options
@_state_option
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most letters."
)
@json_option
@data_dir_option
def list_command(
    *, state: str, limit: int, as_json: bool, data_dir: Path | None, **options: str | None
) -> None:
    """List dead letters, newest first."""

    async def find(letters: Letters, _settings: Settings) -> list[Letter]:
        asked = filters(**options)
        return [letter async for letter in letters.newest(asked, limit, resolved=STATES[state])]

    found = _with_letters(data_dir, find)
    if as_json:
        _print_json({"deadLetters": [letter.told() for letter in found]})
        return
    table = Table("id", "received", "origin", "device", "code", "message", box=None, pad_edge=False)
    for letter in found:
        received = (rfc3339(letter.received_at) or "")[:19]
        words = (received, letter.origin, letter.device_id or "", letter.code, letter.message)
        # As text: what looks like markup in it is none.
        table.add_row(str(letter.dead_letter_id), *(Text(printable(word)) for word in words))
    _print_table(table)
    if len(found) == limit:
        click.echo(f"the newest {limit}; --limit shows more")


@command.command("show")
@click.argument("letter")
@click.option("--raw", is_flag=True, help="Only the bytes, exactly as they came, into a file or a pipe.")
@json_option
@data_dir_option
def show_command(*, letter: str, raw: bool, as_json: bool, data_dir: Path | None) -> None:
    """Show the dead letter with the id LETTER, bytes and all; in hexadecimal where they are no text."""

    async def find(letters: Letters, _settings: Settings) -> list[Letter]:
        return await letters.get([letter_id("LETTER", letter)])

    found = _with_letters(data_dir, find)
    if not found:
        raise FleetwattError(f"there is no dead letter {letter}: it never was, or has been pruned")
    [shown] = found
    if raw:
        if sys.stdout.isatty():
            raise FleetwattError(
                "--raw is for a file or a pipe: bytes of strangers could command the terminal"
            )
        sys.stdout.buffer.write(shown.raw)
    elif as_json:
        _print_json(shown.told())
    else:
        for line in description(shown):
            click.echo(line)


@command.command("summary")
@json_option
@data_dir_option
def summary_command(*, as_json: bool, data_dir: Path | None) -> None:
    """Count dead letters by code and kind."""
    groups = _with_letters(data_dir, lambda letters, _settings: letters.summary())
    if as_json:
        _print_json({"groups": msgspec.to_builtins(groups)})
        return
    table = Table("code", "kind", "letters", "waiting", "bytes", "oldest", "newest", box=None, pad_edge=False)
    for group in groups:
        numbers = (f"{number:,}" for number in (group.letters, group.waiting, group.kept))
        times = ((rfc3339(moment) or "")[:19] for moment in (group.oldest, group.newest))
        table.add_row(Text(printable(group.code)), group.kind or "", *numbers, *times)
    _print_table(table)


@command.command("replay")
@click.argument("letters", nargs=-1)
@_filter_options
@click.option(
    "--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Most letters, oldest first."
)
@click.option("--dry-run", is_flag=True, help="Only decode them and say what would be tried; store nothing.")
@json_option
@data_dir_option
def replay_command(
    *,
    letters: tuple[str, ...],
    limit: int,
    dry_run: bool,
    as_json: bool,
    data_dir: Path | None,
    **options: str | None,
) -> None:
    """Try dead letters again: the LETTERS with these ids, or those that wait and match; without any, all.

    What is good by today's rules is stored, what is stored already is recognised, and each letter is marked
    with what came of it. To repeat it is safe. What a key was not allowed to send (foreign_device) is tried
    only by id or with --code foreign_device; what was dismissed, only by id.
    """
    if letters and any(value is not None for value in options.values()):
        raise FleetwattError("give either ids or filters, not both")

    async def replay(stored: Letters, settings: Settings) -> Report:
        ids = [letter_id("LETTERS", letter) for letter in letters]
        asked = filters(**options)
        if dry_run:
            again = Again(settings, stored.pool)
            return await _replay(Replay(stored, again.take, dry_run=True), ids, asked, limit)
        async with Pipeline(settings, "replay") as pipeline:
            again = Again(settings, stored.pool, submit_to(pipeline, settings))
            return await _replay(Replay(stored, again.take), ids, asked, limit)

    report = _with_letters(data_dir, replay)
    if as_json:
        _print_json(msgspec.to_builtins(report))
        return
    for line in told_in_words(report, dry_run=dry_run):
        click.echo(line)


@command.command("dismiss")
@click.argument("letters", nargs=-1)
@_filter_options
@click.option("--all", "everything", is_flag=True, help="All that wait.")
@json_option
@data_dir_option
def dismiss_command(
    *,
    letters: tuple[str, ...],
    everything: bool,
    as_json: bool,
    data_dir: Path | None,
    **options: str | None,
) -> None:
    """Close dead letters that need nothing more: the LETTERS with these ids, or those that wait and match.

    They count as resolved and wait no longer: `doctor` and the metrics leave them out, and they are pruned as
    resolved ones are. Nothing is stored, and nothing deleted. To repeat it is safe.
    """
    ways = (bool(letters), any(value is not None for value in options.values()), everything)
    if sum(ways) != 1:
        raise FleetwattError("say which letters: give either ids, or filters such as --code, or --all")

    async def dismiss(stored: Letters, _settings: Settings) -> Dismissal:
        if letters:
            return await dismiss_those(stored, [letter_id("LETTERS", letter) for letter in letters])
        return await _dismiss(stored, filters(**options))

    done = _with_letters(data_dir, dismiss)
    if as_json:
        _print_json({"dismissed": done.dismissed, "skipped": done.skipped})
        return
    skipped = f"; {done.skipped} skipped: not there, or resolved already" if done.skipped else ""
    click.echo(f"{done.dismissed} dead {'letter' if done.dismissed == 1 else 'letters'} dismissed{skipped}")


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@_filter_options
@_state_option
@data_dir_option
def export_command(*, file: Path, state: str, data_dir: Path | None, **options: str | None) -> None:
    """Write dead letters as NDJSON into FILE, or "-" for standard output, newest first."""

    async def export(letters: Letters, _settings: Settings) -> int:
        asked = filters(**options)
        count = 0
        with click.open_file(str(file), "wb") as target:
            async for letter in letters.newest(asked, sys.maxsize, resolved=STATES[state]):
                target.write(_json(letter.told()).encode() + b"\n")
                count += 1
        return count

    count = _with_letters(data_dir, export)
    click.echo(f"{count} dead letters written", err=str(file) == "-")


async def _replay(replay: Replay, ids: list[int], asked: Filters, limit: int) -> Report:
    """Replay everything that is asked for, some at a time."""
    if ids:
        return await replay.those(ids)
    total = await replay.matching(asked, min(limit, _AT_ONCE))
    while total.more and (left := limit - total.replayed - total.skipped) > 0:
        total = total.joined(await replay.matching(asked, min(left, _AT_ONCE), after=total.next))
    return total


async def _dismiss(letters: Letters, asked: Filters) -> Dismissal:
    """Dismiss all that match, some at a time."""
    total = await dismiss_matching(letters, asked, _AT_ONCE)
    while total.more:
        part = await dismiss_matching(letters, asked, _AT_ONCE, after=total.next)
        total = msgspec.structs.replace(
            part, dismissed=total.dismissed + part.dismissed, skipped=total.skipped + part.skipped
        )
    return total


def _with_letters(data_dir: Path | None, work: Callable[[Letters, Settings], Awaitable[T]]) -> T:
    """Do something with the letters in the database; what goes wrong is told in words."""
    return with_pool(data_dir, lambda pool, settings: work(Letters(pool), settings))


def _print_table(table: Table) -> None:
    """Print a table: folded to the terminal's width, and as wide as it is where there is none."""
    for column in table.columns:
        column.overflow = "fold"
    console = Console()
    (console if console.is_terminal else Console(width=_WIDE)).print(table)


def _json(value: Any) -> str:
    """Write JSON in ASCII alone: nothing in it can command a terminal."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=True)


def _print_json(value: Any) -> None:
    with suppress(BrokenPipeError):
        click.echo(_json(value))
