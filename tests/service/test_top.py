"""`fleetwatt top`: what it shows of a real service, as picture, line and JSON, and says when that is away."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from anyio import to_thread

from service.settings import PREFIX, Settings
from tests.support import servers
from tests.support.http import charge, store
from tests.support.keys import make_key
from tests.support.proxy import Proxy
from tests.support.serving import PATIENCE_S, Served, served
from tests.support.strategies import at, meter, vehicle

pytestmark = pytest.mark.anyio

ESCAPE: Final = "\x1b"
_IN_A_TERMINAL: Final = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


def environment(**variables: str) -> dict[str, str]:
    """Give the variables of a person who has set only these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return own | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"} | variables


def command(*arguments: str) -> list[str]:
    """Give the command line."""
    return [sys.executable, "-m", "service", "top", *arguments]


async def top(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it without a terminal until it ends."""
    return await to_thread.run_sync(
        lambda: subprocess.run(
            command(*arguments),
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    )


@asynccontextmanager
async def lines_of(*arguments: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Run it with --json; give its lines as they come. At the end Ctrl-C is all it takes."""
    process = await asyncio.create_subprocess_exec(
        *command("--json", *arguments),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    output = process.stdout

    async def looks() -> AsyncIterator[dict[str, Any]]:
        while line := await asyncio.wait_for(output.readline(), PATIENCE_S):
            yield json.loads(line)

    try:
        yield looks()
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    assert process.returncode in {0, 3}


async def charged(service: Served) -> None:
    """Store an hour of a charge that loses a quarter, a duplicate and a refusal, all of today."""
    now = datetime.now(UTC)
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    minute = (start - at(0)).total_seconds() / 60
    await charge(service.client, "v-1", "m-1", start, start + timedelta(hours=1))
    await store(service.client, meter(minute=minute + 30, kwh=10.0), vehicle(minute=minute + 30, kwh=7.5))
    again = await service.client.post(
        "/v1/telemetry",
        json=[
            {"meterId": "m-1", "timestamp": start.isoformat(), "kwhConsumedAc": 1.0, "voltage": 9000},
            {"vehicleId": "v-1", "timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}", "soc": 50.0}
            | {"kwhDeliveredDc": 0.1, "batteryTemp": 20.0},
        ],
    )
    assert len(again.json()["rejected"]) == 1


async def test_one_picture(settings: Settings, tmp_path: Path) -> None:
    """With --once it prints what the API answers, whole lines without escapes, and ends well."""
    async with served(settings, tmp_path) as service:
        await charged(service)
        shown = await top("--once", "--url", f"http://127.0.0.1:{service.port}")
        stats = (await service.client.get("/v1/analytics/stats")).json()
        nowhere_near = await top("--tz", "Mars/Olympus", "--url", f"http://127.0.0.1:{service.port}")
    assert nowhere_near.returncode == 1
    assert "Mars/Olympus" in nowhere_near.stderr
    assert (shown.returncode, shown.stderr) == (0, "")
    assert ESCAPE not in shown.stdout
    picture = re.sub(r" {2,}", "  ", shown.stdout)
    stored = sum(kind["accepted"] for kind in stats["readings"].values())
    for said in (
        "state  ready",
        f"readings stored  {stored}",
        "breaker  closed",
        "buffer  0 of 200,000",
        "dead letters  1",
        "out_of_range  1",
        "charging now",
        "rollups until",
        "billed (AC)",
        "least efficient vehicles",
    ):
        assert said in picture, shown.stdout


async def test_json(settings: Settings, tmp_path: Path) -> None:
    """With --json each look is a line that holds the API's own answers."""
    async with served(settings, tmp_path) as service:
        await charged(service)
        url = f"http://127.0.0.1:{service.port}"
        once = await top("--once", "--json", "--url", url)
        assert once.returncode == 0
        [line] = once.stdout.splitlines()
        seen = json.loads(line)
        assert (seen["ok"], seen["trouble"], seen["url"]) == (True, None, url)
        assert seen["ready"]["breaker"] == "closed"
        assert seen["buffer"] == {"readings": 0, "maxReadings": 200_000}
        assert seen["overview"]["vehicles"]["known"] == 1
        assert seen["stats"]["deadLetters"]["total"] == 1
        assert [each["vehicleId"] for each in seen["worst"]] in ([], ["v-1"])
        assert seen["alerts"] == []
        async with lines_of("--url", url, "--every", "100ms") as looks:
            first, second = await anext(looks), await anext(looks)
            assert first["time"] < second["time"]


async def test_a_line_each_without_a_terminal(settings: Settings, tmp_path: Path) -> None:
    """Into a file or a pipe goes one line for each look."""
    async with served(settings, tmp_path) as service:
        process = await asyncio.create_subprocess_exec(
            *command("--url", f"http://127.0.0.1:{service.port}", "--every", "100ms"),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    for line in lines:
        assert re.match(
            r"\d\d:\d\d:\d\d UTC ready, 0/s, lag -, buffer 0, breaker closed, dead letters 0", line
        )


async def test_a_service_that_goes_and_comes(settings: Settings, tmp_path: Path) -> None:
    """It says that there is no answer, since when, and keeps the figures; then it goes on."""
    async with (
        served(settings, tmp_path) as service,
        Proxy(service.port) as proxy,
        lines_of("--url", f"http://127.0.0.1:{proxy.port}", "--every", "100ms") as looks,
    ):
        good = await anext(looks)
        assert good["ok"]
        assert good["since"] is None
        proxy.lead_to(1)
        proxy.cut()
        away = [look async for look in until(looks, ok=False, more=2)][-3:]
        assert len({look["since"] for look in away}) == 1
        assert good["time"] < away[-1]["since"] < away[-1]["time"]
        assert all("no answer" in look["trouble"] for look in away)
        assert away[-1]["figuresAt"] < away[-1]["since"]
        assert away[-1]["stats"]["devices"] == good["stats"]["devices"]
        proxy.lead_to(service.port)
        back = [look async for look in until(looks, ok=True)][-1]
        assert (back["trouble"], back["since"]) == (None, None)


async def until(
    looks: AsyncIterator[dict[str, Any]], *, ok: bool, more: int = 0
) -> AsyncIterator[dict[str, Any]]:
    """Give looks up to the first that is as wanted, and some more."""
    async for look in looks:
        yield look
        if look["ok"] is ok:
            break
    for _ in range(more):
        yield await anext(looks)


async def test_nobody_answers() -> None:
    """Then it says so, and where; the exit code tells scripts."""
    url = f"http://127.0.0.1:{servers.free_port()}"
    shown = await top("--once", "--url", url)
    assert shown.returncode == 3
    assert url in shown.stdout
    assert "not ready since" in shown.stdout
    assert "no answer" in shown.stdout


async def test_the_database_is_away(settings: Settings, tmp_path: Path) -> None:
    """It says what the service says: it cannot reach the database."""
    async with served(settings, tmp_path) as service, Proxy(service.port) as proxy:
        async with lines_of("--url", f"http://127.0.0.1:{proxy.port}", "--every", "100ms") as looks:
            assert (await anext(looks))["ok"]
            async with nowhere(tmp_path) as other:
                proxy.lead_to(other)
                proxy.cut()
                away = [look async for look in until(looks, ok=False, more=3)][-1]
        assert "breaker closed" in away["trouble"]
        assert away["stats"] is not None


@asynccontextmanager
async def nowhere(folder: Path) -> AsyncIterator[int]:
    """Run a service whose database does not answer; give its port."""
    port = servers.free_port()
    variables = {
        "FLEETWATT_DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "FLEETWATT_HTTP_PORT": f"{port}",
    }
    with (folder / "nowhere.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "serve"),
            env=environment(**variables),
            stdout=output,
            stderr=output,
        )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            break
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), PATIENCE_S)


async def test_keys(settings: Settings, tmp_path: Path) -> None:
    """Without a good key that may read it ends, and says how one is made; with one it shows all."""
    reader, sender = make_key(settings, "read"), make_key(settings, "ingest")
    async with served(settings, tmp_path) as service:
        url = f"http://127.0.0.1:{service.port}"
        none = await top("--url", url)
        wrong = await top("--url", url, FLEETWATT_API_KEY="fw_abcdefghijkl_" + "x" * 43)
        other = await top("--url", url, FLEETWATT_API_KEY=sender.text)
        good = await top("--url", url, "--once", FLEETWATT_API_KEY=reader.text)
    for refused in (none, wrong, other):
        assert refused.returncode == 1
        assert "fleetwatt key create --name top --scope read" in refused.stderr
    assert "asks for a key in FLEETWATT_API_KEY" in none.stderr
    assert "bad_key" in wrong.stderr
    assert "the scope read" in other.stderr
    assert good.returncode == 0
    assert reader.text not in good.stdout


class Terminal:
    """A pseudo terminal with a program in it."""

    def __init__(self, *arguments: str) -> None:
        self.keyboard, inside = pty.openpty()
        termios.tcsetwinsize(inside, (40, 120))
        self.before = termios.tcgetattr(inside)
        self.inside = inside
        self.shown = ""
        self.process = subprocess.Popen(
            # As a shell starts it: the terminal is its own, so Ctrl-C is a signal to it.
            [sys.executable, "-c", _IN_A_TERMINAL, *command(*arguments)],
            env=environment(),
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        os.set_blocking(self.keyboard, False)

    async def until(self, *words: str) -> None:
        """Read until all these were shown."""
        async with asyncio.timeout(PATIENCE_S):
            while not all(word in self.shown for word in words):
                self._read()
                await asyncio.sleep(0.02)

    def press(self, keys: bytes) -> None:
        """Press some keys."""
        os.write(self.keyboard, keys)

    async def end(self) -> int:
        """Wait for the end of the program; give its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            while self.process.poll() is None:
                self._read()
                await asyncio.sleep(0.02)
        self._read()
        assert termios.tcgetattr(self.inside) == self.before
        os.close(self.keyboard)
        os.close(self.inside)
        return int(self.process.returncode)

    def _read(self) -> None:
        try:
            self.shown += os.read(self.keyboard, 65_536).decode(errors="replace")
        except BlockingIOError:
            return


@pytest.mark.parametrize("key", [b"q", b"\x03"])
async def test_live_in_a_terminal(settings: Settings, tmp_path: Path, key: bytes) -> None:
    """It takes the screen, renews the picture, and at q or Ctrl-C gives the terminal back as it was."""
    async with served(settings, tmp_path) as service:
        await charged(service)
        terminal = Terminal("--url", f"http://127.0.0.1:{service.port}", "--every", "100ms")
        await terminal.until("ready", "energy, today", "q or Ctrl-C ends this", f"{ESCAPE}[?1049h")
        await service.client.post("/v1/telemetry", json=[{"meterId": "m-9"}])
        await terminal.until("+1")
        terminal.press(key)
        assert await terminal.end() == 0
    assert f"{ESCAPE}[?1049l" in terminal.shown
    assert "Traceback" not in terminal.shown
