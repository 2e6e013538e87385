"""Measure fleetwatt: `python -m bench` the short form, `--full` all of it, or the scenarios that are named.

Each scenario checks what it has measured; if a check does not hold, or anything breaks, the run ends with
status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench import baselines, engine, fleet, ingest, large, latency, report, storage, stream, under_load
from bench.results import Result, Scenario
from bench.sizes import FULL, SHORT, TINY, Sizes

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario("baselines", "psql \\copy, and one transaction a reading", baselines.measure, short=False),
        *ingest.SCENARIOS,
        *latency.SCENARIOS,
        *under_load.SCENARIOS,
        *large.SCENARIOS,
        *storage.SCENARIOS,
        *stream.SCENARIOS,
    )
}
_FORMS: Final = {"short": SHORT, "full": FULL, "tiny": TINY}


def run(
    edition: str, form: str, changed: dict[str, Any], names: list[str], console: Console
) -> dict[str, Any]:
    """Measure some scenarios; give what was found as it goes into a file."""
    began = time.perf_counter()
    sizes = _FORMS[form]._replace(**changed)
    with engine.running(edition) as servers:
        facts = {
            "form": form if sizes == _FORMS[form] else f"changed {form}",
            "sizes": sizes._asdict(),
            "commit": _commit(),
            **servers.versions(),
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
            "seed": fleet.SEED,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        results = [_measure(servers, sizes, SCENARIOS[name], console) for name in names]
    facts["took_s"] = round(time.perf_counter() - began)
    return {"about": facts, "results": [asdict(result) for result in results]}


def _measure(servers: engine.Engine, sizes: Sizes, scenario: Scenario, console: Console) -> Result:
    console.print(f"{scenario.name}: {scenario.what} ...", highlight=False)
    began = time.perf_counter()
    try:
        result = scenario.run(servers, sizes)
    except Exception as error:  # noqa: BLE001 - the others are measured all the same
        traceback.print_exc()
        result = Result(scenario.name, scenario.what, failed=f"{type(error).__name__}: {error}")
    console.print(f"  {time.perf_counter() - began:.0f} s {result.failed and 'FAILED'}", highlight=False)
    return result


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    described = subprocess.run(
        [git, "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip() or "unknown"


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in Sizes._fields or name == "latency_rates" or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no size of bench/sizes.py and a whole number")
    return name, int(number)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="those to measure; see --list")
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--full", dest="form", action="store_const", const="full", default="short")
    form.add_argument(
        "--tiny", dest="form", action="store_const", const="tiny", help="only try that it works"
    )
    parser.add_argument(
        "--size", type=_size, action="append", default=[], metavar="NAME=NUMBER",
        help="change one of the sizes of bench/sizes.py, say rows_many=5000000",
    )  # fmt: skip
    parser.add_argument("--edition", choices=["apache", "community"], default="apache")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the plots of what was measured there")
    options = parser.parse_args()
    # A pipe has no width: the tables need this.
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.list:
        for scenario in SCENARIOS.values():
            only = "" if scenario.short else " (full form)"
            console.print(f"{scenario.name:<15} {scenario.what}{only}", highlight=False)
        return
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; see --list")
    names = options.scenarios or [
        name for name, each in SCENARIOS.items() if each.short or options.form != "short"
    ]
    document = run(options.edition, options.form, dict(options.size), names, console)
    report.show(document, console)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plots:
        # Late: without plots it is not needed.
        from bench import plots

        plots.draw(document, options.plots)
    if any(result["failed"] for result in document["results"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
