"""The plots of a run, small PNG files: `python -m bench --plots DIR` or `python -m bench.plots FILE DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

# No display is asked for.
mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

_SIZE: Final = (7.2, 4.0)
_DPI: Final = 100
_STYLE: Final[dict[Any, Any]] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "font.size": 10,
    "grid.alpha": 0.3,
}
_MARKS: Final = {"p50": "o-", "p99": "s--"}


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured with more than one point; give the files."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {result["scenario"]: result for result in document["results"] if not result["failed"]}
    drawn = []
    with plt.rc_context(_STYLE):
        for name, plot in (
            ("throughput", _throughput),
            ("latency", _latency),
            ("history", _history),
        ):
            figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
            if plot(results, axes):
                file = folder / f"{name}.png"
                # Nothing of the day or the version goes in: the same figures give the same file.
                figure.savefig(file, dpi=_DPI, metadata={"Software": None})
                drawn.append(file)
            plt.close(figure)
    return drawn


def _throughput(results: dict[str, Any], axes: Any) -> bool:
    named = ("http-1", "http-10", "http-100", "http-1000", "http-5000")
    found = [results[name]["figures"] for name in named if name in results]
    batches = [figures["batch"] for figures in found]
    rates = [figures["per_s"] for figures in found]
    below = [figures["per_s"] - figures["per_s_min"] for figures in found]
    above = [figures["per_s_max"] - figures["per_s"] for figures in found]
    if len(found) < 2:
        return False
    axes.errorbar(batches, rates, (below, above), fmt="o-", capsize=3, label="HTTP, committed")
    for name, label in (("copy_per_s", "psql \\copy"), ("one_by_one_per_s", "one transaction a reading")):
        axes.plot(batches, [figures[name] for figures in found], "--", alpha=0.7, label=label)
    _label(axes, "Throughput against batch size", "readings a request", "readings a second")
    return True


def _latency(results: dict[str, Any], axes: Any) -> bool:
    several = False
    for way in ("http", "mqtt"):
        points = results.get(f"latency-{way}", {"points": []})["points"]
        if len(points) < 2:
            continue
        several = True
        for name, mark in _MARKS.items():
            times = [point[f"latency_{name}_ms"] for point in points]
            axes.plot([point["rate"] for point in points], times, mark, label=f"{way.upper()} {name}")
    if several:
        _label(axes, "Time until the commit of single readings", "readings a second", "ms")
    return several


def _history(results: dict[str, Any], axes: Any) -> bool:
    points = results.get("large", {"points": []})["points"]
    if len(points) < 2:
        return False
    for name, mark in _MARKS.items():
        times = [point[f"performance_{name}_ms"] for point in points]
        axes.plot([point["rows"] / 1e6 for point in points], times, mark, label=name)
    _label(axes, "24-hour energy summary of a vehicle over HTTP", "million readings stored", "ms")
    axes.set_yscale("linear")
    axes.set_ylim(bottom=0)
    return True


def _label(axes: Any, title: str, across: str, up: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.legend(frameon=False)


def main() -> None:
    """Draw the results of a file."""
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
