"""`just fuzz`: try inputs by the million, on every core, and say how many and what went wrong."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from typing import Any, Final

from tests.fuzz import limits
from tests.fuzz.targets import try_one

_FAILURES_MAX: Final = 20
# A hang that only takes time is ended from within; one that waits for ever, or never leaves C, from here.
_SILENT_S: Final = 60.0
_REPORT_S: Final = 10.0


def main() -> int:
    """Read the options and run; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="just fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many inputs [1,000,000]")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after that long")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="repeats a run")
    parser.add_argument("--only", type=int, help="try one input of a seed again, and show what it raises")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.only is not None:
        with limits.watchdog() as watch:
            watch()
            sys.stdout.write(f"{try_one(options.seed, options.only)[0]}: nothing wrong\n")
        return 0
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    context = multiprocessing.get_context("fork")
    # How many inputs each process has tried, the number it is at, and the failures of all.
    tried = context.Array("q", options.processes)
    found = context.Queue()
    stop = context.Value("b", 0)
    processes = [
        context.Process(target=_work, args=(options, place, tried, stop, found), daemon=True)
        for place in range(options.processes)
    ]
    began = time.monotonic()
    sys.stdout.write(f"seed {options.seed}, {options.processes} processes\n")
    for process in processes:
        process.start()
    failures, counts = _watch(options, processes, tried, stop, found, began)
    took_s = time.monotonic() - began
    total: int = sum(tried[:])
    sys.stdout.write("".join(f"  {count:>9,}  {name}\n" for name, count in counts.most_common()))
    sys.stdout.write(
        f"{total:,} inputs in {took_s:.0f} s, {total / took_s:,.0f} a second, {failures} failures\n"
    )
    return 1 if failures else 0


def _watch(
    options: argparse.Namespace,
    processes: list[Any],
    tried: SynchronizedArray[int],
    stop: Synchronized[int],
    found: Any,
    began: float,
) -> tuple[int, Counter[str]]:
    """Report now and then until all are done; end those that stand still."""
    failures = 0
    counts: Counter[str] = Counter()
    moved = [(0, began)] * len(processes)
    reported = began
    waiting = len(processes)
    while waiting:
        now = time.monotonic()
        while not found.empty():
            told = found.get()
            if isinstance(told, Counter):
                counts += told
                waiting -= 1
            else:
                failures += 1
                sys.stdout.write(f"{told}\n")
        for place, process in enumerate(processes):
            if tried[place] != moved[place][0] or not process.is_alive():
                moved[place] = tried[place], now
            elif now - moved[place][1] > _SILENT_S:
                number = place + tried[place] * len(processes)
                sys.stdout.write(f"input {number} never ends (--seed {options.seed} --only {number})\n")
                process.kill()
                failures += 1
                waiting -= 1
        if now - reported > _REPORT_S:
            reported = now
            total: int = sum(tried[:])
            sys.stdout.write(
                f"  {total:,} inputs, {total / (now - began):,.0f} a second, {failures} failures\n"
            )
            sys.stdout.flush()
        if failures >= _FAILURES_MAX or now - began > options.seconds:
            stop.value = 1
        if not any(process.is_alive() for process in processes) and found.empty():
            failures += waiting  # it died without a word
            break
        time.sleep(0.1)
    return failures, counts


def _work(
    options: argparse.Namespace,
    place: int,
    tried: SynchronizedArray[int],
    stop: Synchronized[int],
    found: Any,
) -> None:
    """Try every input whose number falls to this process."""
    counts: Counter[str] = Counter()
    with limits.watchdog() as watch:
        for number in range(place, options.inputs, options.processes):
            if stop.value:
                break
            watch()
            try:
                counts[try_one(options.seed, number)[0]] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
                where = f"--seed {options.seed} --only {number}"
                found.put(f"{type(error).__name__} ({where}): {str(error)[:500]}")
            tried[place] += 1
    found.put(counts)


if __name__ == "__main__":
    sys.exit(main())
