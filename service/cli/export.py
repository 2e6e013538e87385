"""`fleetwatt export`: readings, rollups or sessions to a file."""

from __future__ import annotations

import time
from pathlib import Path

import rich_click as click

from service import log
from service.cli.options import client_settings, data_dir_option
from service.cli.progress import export_progress
from service.errors import ExportError, FleetwattError
from service.exporter.datasets import DATASETS
from service.exporter.formats import Format, format_of
from service.exporter.run import ExportOptions, export
from service.web import parameters
from service.web.problems import Problem

_HELP = """Export WHAT into FILE: CSV, NDJSON or Parquet, or to standard output ("-").

All of it is as it was at one moment. The file appears when it is whole; .gz at its end packs CSV and
NDJSON. Times are UTC. `fleetwatt import` reads exported readings again, `fleetwatt sessions import` sessions
in CSV. Rollups are those of the hours or days (UTC) that start in the window, exact to the moment.

\b
    fleetwatt export meter january.csv.gz --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z
    fleetwatt export vehicle-hourly hours.parquet --device VH-001 --device VH-002
    fleetwatt export sessions - --format csv
"""


@click.command("export", help=_HELP)
@click.argument("what", type=click.Choice(list(DATASETS)))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--from", "from_", metavar="TIME", help="From then on, RFC 3339.  [default: the first there is]"
)
@click.option("--to", metavar="TIME", help="Before then.  [default: the last there is]")
@click.option(
    "--device", "devices", metavar="ID", multiple=True, help="Only this device's; can be given several times."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "ndjson", "parquet"]),
    help="[default: by the file's name]",
)
@data_dir_option
def command(
    *,
    what: str,
    file: Path,
    from_: str | None,
    to: str | None,
    devices: tuple[str, ...],
    form: Format | None,
    data_dir: Path | None,
) -> None:
    """Read the options, export, report."""
    settings = client_settings(data_dir)
    log.configure(settings.log_level, settings.log_format)
    chosen = form or format_of(file.name)
    if chosen is None:
        raise ExportError(f"{file}: say with --format whether it is to be csv, ndjson or parquet")
    if chosen == "parquet" and file.suffix == ".gz":
        raise ExportError("Parquet is packed already: leave .gz out")
    try:
        window_from, window_to = parameters.open_window(from_, to)
        ids = tuple(parameters.device("--device", device) for device in devices)
    except Problem as problem:
        raise FleetwattError(problem.detail) from None
    options = ExportOptions(
        what=what, path=file, form=chosen, window_from=window_from, window_to=window_to, devices=ids
    )
    began = time.monotonic()
    with export_progress(what) as show:
        report = export(options, settings, show)
    took_s = time.monotonic() - began
    click.echo(
        f"{report.rows:,} rows, {report.bytes_written / 1e6:,.1f} MB, {took_s:.1f} s", err=str(file) == "-"
    )
