"""Supervision of child processes: started again whatever happens, and never mistaken for another."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.embedded.logs import rotate_all
from service.embedded.processes import Child, end_leftover, started_at

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run on plain asyncio, as `fleetwatt up` does."""
    return "asyncio"


async def restarted(child: Child, pid: int | None) -> int:
    """Wait until the child is another process than before."""
    async with asyncio.timeout(20):
        while child.pid in {None, pid} or not child.running:
            await asyncio.sleep(0.02)
    assert child.pid is not None
    return child.pid


async def test_a_full_disk_does_not_end_the_supervision(tmp_path: Path) -> None:
    """When the state cannot be written the child is still watched, and started again each time it dies."""
    child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(100)"], tmp_path / "log")
    await child.start()

    def full() -> None:
        raise OSError(28, "No space left on device")

    child.on_spawn = full
    try:
        pid = child.pid
        for _ in range(2):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            pid = await restarted(child, pid)
    finally:
        await child.stop()
    assert started_at(pid or 0) is None


def test_a_pid_that_was_used_again_is_left_alone() -> None:
    """A leftover is named by pid and start time: another process with its pid is none of our business."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as stranger:
        started = started_at(stranger.pid)
        assert started is not None
        assert not end_leftover(stranger.pid, started + 1, signal.SIGTERM)
        assert stranger.poll() is None
        assert end_leftover(stranger.pid, started, signal.SIGTERM)


_TALKER = """
import itertools, time
for number in itertools.count():
    print(number, flush=True)
    time.sleep(0.002)
"""


async def test_a_log_is_begun_anew_while_it_is_written(tmp_path: Path) -> None:
    """What a process says goes on in the file of the same name, older parts beside it; few of them stay."""
    file = tmp_path / "talker.log"
    child = Child("talker", [sys.executable, "-u", "-c", _TALKER], file)
    await child.start()
    parts = [tmp_path / f"talker.log{end}" for end in (".3", ".2", ".1", "")]
    try:
        async with asyncio.timeout(20):
            while not parts[0].exists() or parts[0].read_text().startswith("0\n"):
                await asyncio.sleep(0.01)
                rotate_all(tmp_path, most_bytes=400)
    finally:
        await child.stop()
    assert not (tmp_path / "talker.log.4").exists()
    numbers = [int(line) for part in parts for line in part.read_text().splitlines()]
    assert numbers == sorted(set(numbers))
    assert "whole log" in child.last_words()


def test_a_log_that_finds_no_room_is_left_as_it_is(tmp_path: Path) -> None:
    """Nothing is cut off before a copy of it is whole."""
    file = tmp_path / "up.log"
    file.write_text("said\n" * 100)
    (tmp_path / "up.log.partial").mkdir()
    rotate_all(tmp_path, most_bytes=400)
    assert file.read_text() == "said\n" * 100
