"""`python -m tests.chaos`: faults against a full engine, all counted; exit code 1 if something is wrong."""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import click
import msgspec
from rich.console import Console

from service import log
from tests.chaos import report
from tests.chaos.engine import Engine
from tests.chaos.faults import FAULTS
from tests.chaos.replicated import ReplicatedEngine
from tests.chaos.rounds import Result, play

_CLONE_NEWNS = 0x20000


@click.command()
@click.option(
    "--rounds", default=3, show_default=True, help="Rounds; faults that take no time come 3 times in each."
)
@click.option("--seed", default=None, help="What, where and when follow from it; a new one unless given.")
@click.option("--faults", default="", help="Names with commas between them; all by default.")
@click.option("--short", is_flag=True, help="Shorter faults.")
@click.option("--recovery", "recovery_max_s", default=10.0, show_default=True, help="Bound of recovery, s.")
@click.option("--services", default=2, show_default=True)
@click.option("--workers", default=2, show_default=True, help="One subscribes plainly, several share.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every round to this file.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the processes' logs in this folder.")
def main(
    rounds: int,
    seed: str | None,
    faults: str,
    short: bool,
    recovery_max_s: float,
    services: int,
    workers: int,
    json_file: Path | None,
    logs: Path | None,
) -> None:
    """Prove that nothing acknowledged is lost and nothing stored twice, whatever fails."""
    log.configure("error")
    every = [name for name, fault in FAULTS.items() if fault.in_short or not short]
    chosen = faults.split(",") if faults else every
    unknown = set(chosen) - set(FAULTS)
    if unknown:
        raise click.UsageError(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    console = Console(stderr=True, width=160)
    seed = seed or secrets.token_hex(4)
    if any(FAULTS[name].small_disk for name in chosen) and not _own_mounts():
        chosen = [name for name in chosen if not FAULTS[name].small_disk]
        console.print("skipped: full disks need root, to mount a small tmpfs")
    results: list[Result] = []
    try:
        for kind in dict.fromkeys(_engine(name, workers) for name in chosen):
            names = [fault for fault in chosen if _engine(fault, workers) == kind]
            engine = kind.make(services, workers)
            engine.logs = logs and logs / kind.name
            asyncio.run(_play_all(engine, names, rounds, seed, short, results, console))
    except KeyboardInterrupt:
        console.print("stopped; so far:")
    report.show(results, console, seed)
    wrong = [(result, result.failures(recovery_max_s)) for result in results]
    for result, failures in wrong:
        for failure in failures:
            again = f"--seed {seed} --faults {result.fault}"
            console.print(f"FAILED {result.fault} {result.seed} ({again}): {failure}", highlight=False)
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    sys.exit(1 if any(failures for _, failures in wrong) or not results else 0)


async def _play_all(
    engine: Engine,
    names: list[str],
    rounds: int,
    seed: str,
    short: bool,
    results: list[Result],
    console: Console,
) -> None:
    often = {name: 1 if short else FAULTS[name].often for name in names}
    plan = [(name, f"{seed}.{number}") for name in names for number in range(rounds * often[name])]
    Random(seed).shuffle(plan)
    async with engine:
        for name, round_seed in plan:
            result = await play(engine, name, round_seed, short=short)
            results.append(result)
            account = result.account
            recovered = ", ".join(f"{way} {seconds:.1f}" for way, seconds in result.recovery_s.items())
            console.print(
                f"{name} {round_seed}: sent {account.sent}, acknowledged {account.acknowledged}, "
                f"stored {account.stored}, lost {len(account.lost)}, refused {account.refused}, "
                f"letters {account.letters}, sessions {account.sessions}, recovered after {recovered} s"
                + "".join(f"; {note}" for note in result.notes),
                highlight=False,
            )


class _Kind(NamedTuple):
    """A kind of engine: its name, and what makes one, given how many services and workers are asked for."""

    name: str
    make: Callable[[int, int], Engine]


def _engine(fault: str, workers: int) -> _Kind:
    """Tell what kind of engine a fault wants."""
    wants = FAULTS[fault]
    if wants.spares:
        return _SCALED
    if wants.replicated:
        return _REPLICATED
    alone = wants.alone or workers == 1
    if wants.small_disk:
        return _SMALL_DISK_ALONE if alone else _SMALL_DISK
    return _ALONE if alone else _SHARING


_SHARING: Final = _Kind("sharing", lambda services, workers: Engine(services=services, workers=workers))
_ALONE: Final = _Kind("alone", lambda services, _: Engine(services=services, workers=1))
_SMALL_DISK: Final = _Kind(
    "small-disk", lambda services, workers: Engine(services=services, workers=workers, small_disk=True)
)
_SMALL_DISK_ALONE: Final = _Kind(
    "small-disk", lambda services, _: Engine(services=services, workers=1, small_disk=True)
)
_SCALED: Final = _Kind("scaled", lambda *_: Engine(services=2, workers=3, spares=1))
_REPLICATED: Final = _Kind(
    "replicated", lambda services, workers: ReplicatedEngine(services=services, workers=workers)
)


def _own_mounts() -> bool:
    """Get mounts of our own, which vanish with us however we end; False if that takes rights we lack."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
        return False
    private = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)
    return private.returncode == 0


if __name__ == "__main__":
    main()
