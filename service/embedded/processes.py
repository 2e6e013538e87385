"""Child processes: started, watched, started again when they die, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from service import log
from service.embedded.account import Account
from service.errors import EmbeddedError
from service.lifecycle import die_with_parent


def started_at(pid: int) -> int | None:
    """Give when a process started, in clock ticks since boot; None when there is no such process.

    Together with the pid it names a process for good: pids are used again, pairs are not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def end_leftover(pid: int, started: int, stop_signal: signal.Signals, grace_s: float = 10.0) -> bool:
    """End a process of an earlier run that outlived its supervisor; tell whether there was one."""
    if started_at(pid) != started:
        return False
    os.kill(pid, stop_signal)
    deadline = time.monotonic() + grace_s
    while started_at(pid) == started:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return True


class Child:
    """A process that is kept running: when it ends by itself, it is started again after a pause.

    Children have a session of their own, so Ctrl-C on the terminal reaches the supervisor alone, which
    then stops them in the right order.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        log_file: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        environment: dict[str, str] | None = None,
        account: Account | None = None,
        grace_s: float = 20.0,
    ) -> None:
        self.name = name
        self.stop_signal = stop_signal
        self.restarts = 0
        self.on_spawn: Callable[[], None] = lambda: None
        self._command = command
        self._log_file = log_file
        # Without our own supervisor's socket: a child that is ready does not make all of us ready.
        ours = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        self._environment = ours | (environment or {})
        self._account = account
        self._grace_s = grace_s
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False
        self._log_start = 0
        self._log = log.get("supervisor")

    @property
    def pid(self) -> int | None:
        """The pid of the current process, None before the first start."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process and watch it."""
        await self._spawn()
        self._watch = asyncio.create_task(self._keep_running())

    async def wait_until(self, ready: Callable[[], object], timeout_s: float, *, tries: int = 1) -> None:
        """Wait until `ready()` (a coroutine function giving a bool) says so.

        Raises EmbeddedError with the end of the log when the process has died `tries` times, or time is up.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            answer = ready()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            if self.restarts >= tries or (not self.running and tries == 1):
                raise EmbeddedError(f"{self.name} ended while starting:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} was not ready in {timeout_s:.0f} s:\n{self.last_words()}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ask the process to end, wait, and insist when the grace period is over."""
        self._stopping = True
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(self.stop_signal)
        try:
            async with asyncio.timeout(self._grace_s):
                await self._process.wait()
        except TimeoutError:
            self._log.warning("child_killed", child=self.name, grace_s=self._grace_s)
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def last_words(self, lines: int = 12) -> str:
        """Give the end of the process's log, for an error message."""
        try:
            with self._log_file.open(errors="replace") as log_file:
                # It may have been rotated meanwhile.
                log_file.seek(self._log_start if self._log_start <= self._log_file.stat().st_size else 0)
                text = log_file.read().splitlines()[-lines:]
        except OSError:
            text = []
        return "\n".join([*(f"  {line}" for line in text), f"  (whole log: {self._log_file})"])

    async def _spawn(self) -> None:
        options = self._account.popen_options() if self._account else {}
        with self._log_file.open("ab") as output:
            self._log_start = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, self.stop_signal),
                cwd="/",
                **options,
            )
        try:
            self.on_spawn()
        except OSError as error:
            # What the state file says is for the next start; it does not decide about this process.
            self._log.warning("state_not_written", child=self.name, error=str(error))

    async def _keep_running(self) -> None:
        pause_s = 0.2
        while True:
            assert self._process is not None  # noqa: S101 - start() spawned it  # nosec B101
            began = time.monotonic()
            code = await self._process.wait()
            if self._stopping:
                return
            self.restarts += 1
            if time.monotonic() - began > 30:
                pause_s = 0.2
            self._log.warning("child_ended", child=self.name, code=code, restart_in_s=pause_s)
            await self._spawn_again(pause_s)
            pause_s = min(pause_s * 2, 5.0)

    async def _spawn_again(self, pause_s: float) -> None:
        """Start the process anew, for as long as it takes: a full disk must not end the supervision."""
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._spawn()
            except OSError as error:
                self._log.warning("child_not_started", child=self.name, error=str(error))
                pause_s = 2.0
            else:
                return
