"""`fleetwatt dead-letters`: list, show, summary, replay, dismiss and export, as an operator calls them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.cli.dead_letters_view import hexdump
from service.log import printable
from service.settings import Settings
from tests.support.letters import keep, marks, tables
from tests.support.strategies import Owner, altered, as_json, meter, rows, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

Run = Callable[..., subprocess.CompletedProcess[bytes]]
# Colours the terminal, renames its window, turns the line around, and asks for the terminal's answer.
HOSTILE = '\x1b[31mred\x1b]0;title\x07\u009b5n\u202egnol\r[bold]"'


@pytest.fixture
def fleetwatt(settings: Settings) -> Run:
    """Run `fleetwatt dead-letters` on the test's database."""

    def run(*arguments: str, url: str | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "service", "dead-letters", *arguments],
            env={**os.environ, "FLEETWATT_DATABASE_URL": settings.database_url if url is None else url},
            capture_output=True,
            check=False,
            timeout=50,
        )

    return run


def told(result: subprocess.CompletedProcess[bytes]) -> Any:
    """Give the JSON that a command printed."""
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def words(result: subprocess.CompletedProcess[bytes]) -> str:
    """Give what a command printed for people: nothing in it commands a terminal."""
    assert result.returncode == 0, result.stdout + result.stderr
    text = result.stdout.decode()
    assert all(letter.isprintable() or letter == "\n" for letter in text), text
    return text


async def test_list_and_summary(fleetwatt: Run, owner: Owner) -> None:
    """Letters newest first, by filters; counts by code and kind."""
    first = await keep(owner, altered(meter()), "mqtt:telemetry/meter/m-1", kind="meter", device_id="m-1")
    second = await keep(owner, altered(vehicle()), code="conflict", kind="vehicle", device_id="v-1")
    text = words(fleetwatt("list"))
    assert text.index(f"\n{second} ") < text.index(f"\n{first} ")
    assert "mqtt:telemetry/meter/m-1" in text
    assert "it was refused" in text
    for arguments, ids in (
        (("--kind", "meter"), [first]),
        (("--code", "conflict"), [second]),
        (("--origin", "mqtt:"), [first]),
        (("--device-id", "v-1"), [second]),
        (("--limit", "1"), [second]),
        (("--state", "resolved"), []),
        (("--state", "all", "--to", "2026-01-01T00:00:00Z"), []),
    ):
        listed = told(fleetwatt("list", "--json", *arguments))["deadLetters"]
        assert [letter["id"] for letter in listed] == ids
    assert "the newest 1; --limit shows more" in words(fleetwatt("list", "--limit", "1"))
    groups = told(fleetwatt("summary", "--json"))["groups"]
    assert [(group["code"], group["kind"], group["waiting"]) for group in groups] == [
        ("conflict", "vehicle", 1),
        ("future_timestamp", "meter", 1),
    ]
    assert "conflict" in words(fleetwatt("summary"))


async def test_show(fleetwatt: Run, owner: Owner) -> None:
    """A letter with all its bytes: text as it is, what is none in hexadecimal, or exactly, into a file."""
    good = await keep(owner, b'{"a": 1,\n "b": 2}', code="missing", device_id="m-1", kind="meter")
    binary = bytes(range(40))[::-1] + b"\xff"
    bad = await keep(owner, binary, raw_size=5000)
    text = words(fleetwatt("show", str(good)))
    assert '{"a": 1,\n "b": 2}' in text
    assert "meter m-1" in text
    assert "missing: it was refused" in text
    text = words(fleetwatt("show", str(bad)))
    assert "00000000  27 26 25" in text
    assert "5,000, of which the first 41 were kept" in text
    assert fleetwatt("show", str(bad), "--raw").stdout == binary
    assert base64.b64decode(told(fleetwatt("show", str(bad), "--json"))["rawBase64"]) == binary
    for arguments, message in (
        (("show", "999"), "there is no dead letter 999"),
        (("show", "last"), "LETTER must be the id of a dead letter"),
        (("list", "--code", "A B"), "code must be"),
        (("list", "--from", "soon"), "is not an RFC 3339 timestamp"),
        (("replay", "1", "--code", "conflict"), "either ids or filters"),
    ):
        result = fleetwatt(*arguments)
        assert result.returncode == 1
        assert message in result.stderr.decode()
        assert len(result.stderr.decode().strip().splitlines()) == 1


async def test_nothing_in_a_letter_commands_the_terminal(fleetwatt: Run, owner: Owner) -> None:
    """Escape sequences, marks that turn the line around, and markup come out as what they are."""
    number = await keep(
        owner,
        HOSTILE.encode(),
        "mqtt:" + HOSTILE,
        code="malformed_json",
        message=HOSTILE,
        device_id=HOSTILE,
    )
    await owner.execute(
        "update dead_letter set replays = 1, replayed_at = now(), replay_error = %s", (HOSTILE,)
    )
    for arguments in (
        ("list",),
        ("show", str(number)),
        ("list", "--json"),
        ("show", str(number), "--json"),
        ("summary",),
        ("replay",),
        ("export", "-"),
    ):
        text = words(fleetwatt(*arguments))
        assert "red" in text or arguments[0] in {"summary", "replay"}
        assert "\\x1b[31m" in text or "--json" in arguments or arguments[0] not in {"list", "show"}
    assert "[bold]" in words(fleetwatt("list"))
    assert told(fleetwatt("show", str(number), "--json"))["raw"] == HOSTILE


async def test_replay(fleetwatt: Run, owner: Owner) -> None:
    """A dry run stores nothing; a replay stores what is good, marks each letter, and says what came of it."""
    good = await keep(owner, altered(meter()), kind="meter")
    bad = await keep(owner, altered(meter(minute=1), voltage=-1), kind="meter", code="out_of_range")
    csv = await keep(owner, b"1;2;3", "import:a.csv:1-2", code="out_of_range")
    before = await tables(owner)
    report = told(fleetwatt("replay", "--dry-run", "--json"))
    assert (report["replayed"], report["stored"], report["refused"], report["skipped"]) == (2, 1, 1, 1)
    assert "1 readings are good by today's rules" in words(fleetwatt("replay", "--dry-run"))
    assert await tables(owner) == before
    assert set((await marks(owner)).values()) == {(False, 0, None)}
    text = words(fleetwatt("replay", "--kind", "meter"))
    assert "2 letters tried again, 1 of them resolved: 1 readings stored" in text
    assert f'  {bad} refused: "voltage" must be' in text
    report = told(fleetwatt("replay", str(good), str(bad), str(csv), "--json"))
    results = {each["id"]: each["result"] for each in report["results"]}
    assert results == {good: "skipped", bad: "refused", csv: "skipped"}
    marked = await marks(owner)
    assert [marked[number][:2] for number in (good, bad, csv)] == [(True, 1), (False, 2), (False, 0)]
    assert len((await tables(owner))["meter"]) == 1
    [counted] = await rows(owner, "select writer, accepted from ingest_minute where accepted > 0")
    assert counted["writer"].startswith("replay/")


async def test_replay_of_many_goes_on_by_itself(fleetwatt: Run, owner: Owner) -> None:
    """More letters than one call takes are replayed in several, and counted together."""
    for minute in range(3):
        await keep(owner, altered(meter(minute=minute)))
    await owner.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) "
        "select 'http:/v1/telemetry', 'missing', 'm', '{}', 2 from generate_series(1, 1200)"
    )
    await keep(owner, altered(meter(minute=9)))
    report = told(fleetwatt("replay", "--json"))
    assert (report["replayed"], report["stored"], report["refused"]) == (1204, 4, 1200)
    assert (len(report["results"]), report["more"]) == (500, False)
    report = told(fleetwatt("replay", "--limit", "1100", "--json"))
    assert (report["replayed"], report["more"]) == (1100, True)
    text = words(fleetwatt("replay", "--limit", "50"))
    assert "and 30 x missing" in text
    assert "--limit takes more" in text


async def test_two_commands_at_once(fleetwatt: Run, owner: Owner) -> None:
    """Two processes that replay the same letters store each reading once."""
    for minute in range(50):
        await keep(owner, altered(meter(minute=minute)))
    results = await asyncio.gather(*(asyncio.to_thread(fleetwatt, "replay", "--json") for _ in range(2)))
    assert sum(told(result)["stored"] for result in results) == 50
    assert len((await tables(owner))["meter"]) == 50
    assert {mark[0] for mark in (await marks(owner)).values()} == {True}


async def test_dismiss(fleetwatt: Run, owner: Owner) -> None:
    """Letters by id, by filter, or all of them, and how many; nothing for who does not say which."""
    one = await keep(owner, b"{", code="malformed_json")
    two = await keep(owner, altered(meter()), "mqtt:telemetry/meter/m-1", kind="meter", code="conflict")
    for arguments, message in (
        ((), "say which letters"),
        (("--all", "--code", "conflict"), "say which letters"),
        (("--all", str(one)), "say which letters"),
        ((str(one), "--code", "conflict"), "say which letters"),
        (("one",), "LETTERS must be the id of a dead letter"),
        (("--code", "A B"), "code must be"),
    ):
        result = fleetwatt("dismiss", *arguments)
        assert result.returncode == 1
        assert message in result.stderr.decode()
    assert set((await marks(owner)).values()) == {(False, 0, None)}
    assert (
        words(fleetwatt("dismiss", "--code", "conflict", "--origin", "mqtt:")) == "1 dead letter dismissed\n"
    )
    assert await marks(owner) == {one: (False, 0, None), two: (True, 0, "dismissed")}
    text = words(fleetwatt("dismiss", str(one), str(two), "999"))
    assert text == "1 dead letter dismissed; 2 skipped: not there, or resolved already\n"
    assert words(fleetwatt("dismiss", "--all")) == "0 dead letters dismissed\n"
    assert told(fleetwatt("dismiss", str(one), "--json")) == {"dismissed": 0, "skipped": 1}
    text = words(fleetwatt("show", str(two)))
    assert "\ndismissed      20" in text
    assert "refused again" not in text


async def test_dismissal_of_many_goes_on_by_itself(fleetwatt: Run, owner: Owner) -> None:
    """More letters than one call takes are dismissed in several, and counted together."""
    await owner.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) "
        "select 'import:a.csv:2-9', 'missing', 'm', 'a', 1 from generate_series(1, 2300)"
    )
    kept = await keep(owner, b"{")
    assert words(fleetwatt("dismiss", "--origin", "import:a.csv:")) == "2300 dead letters dismissed\n"
    assert {number for number, mark in (await marks(owner)).items() if not mark[0]} == {kept}


async def test_export(fleetwatt: Run, owner: Owner, tmp_path: Path) -> None:
    """NDJSON as the API tells letters, newest first."""
    ids = [await keep(owner, as_json(meter(minute=minute))) for minute in range(3)]
    file = tmp_path / "letters.ndjson"
    result = fleetwatt("export", str(file))
    assert result.returncode == 0, result.stderr
    letters = [json.loads(line) for line in file.read_text().splitlines()]
    assert [letter["id"] for letter in letters] == ids[::-1]
    assert json.loads(letters[0]["raw"])["meterId"] == "m-1"
    assert len(fleetwatt("export", "-", "--code", "conflict").stdout) == 0


@pytest.mark.parametrize("arguments", [("list",), ("replay",), ("summary",), ("dismiss", "--all")])
async def test_without_a_database(fleetwatt: Run, arguments: tuple[str, ...]) -> None:
    """One line of words, and nothing else; it tries for 10 s."""
    result = fleetwatt(*arguments, url="postgresql://127.0.0.1:1/none")
    assert result.returncode == 1
    assert "the database does not answer" in result.stderr.decode()


def test_printable() -> None:
    """What is printed is printable, and says what it was."""
    assert printable("Zürich 10 °C {}") == "Zürich 10 °C {}"
    assert printable("a\x1b[2J\n\u009b\u202eb") == "a\\x1b[2J\\n\\x9b\\u202eb"


def test_hexdump() -> None:
    """Offsets, bytes and what of them is ASCII; the last line is short."""
    lines = list(hexdump(bytes(range(0x10, 0x30)) + b"~\x7f"))
    assert lines[1] == "00000010  20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f   !\"#$%&'()*+,-./"
    assert lines[2].startswith("00000020  7e 7f ")
    assert lines[2].endswith(" ~.")
    assert [line[:8] for line in lines] == ["00000000", "00000010", "00000020"]
