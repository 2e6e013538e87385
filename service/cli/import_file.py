"""`fleetwatt import`: readings from a CSV or NDJSON file."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import rich_click as click

from service import log
from service.cli.options import Duration, client_settings, data_dir_option
from service.cli.progress import file_progress
from service.errors import ImportFileError
from service.importer.mapping import Mapping
from service.importer.report import rejects_file
from service.importer.run import ImportOptions, import_file

_HELP = """Import readings from FILE: CSV or NDJSON, plain or gzip, or "-" for standard input.

Repeats count as duplicates, so a broken import is resumed by importing the file again. Lines that are no
reading are reported with their number, kept as dead letters, and stop nothing; importing a file of this name
again keeps them no second time. Where a line was rejected the exit code is 1, unless --no-strict is given.

A COLUMN is a column's name; `=VALUE` is a constant for all lines. Without an option, columns are found by
the names that the HTTP API and the database use.

A local time that occurs twice, when summer time ends, is settled by the order of the lines: the second
pass through that hour is winter time. One that the clock skips in spring is rejected.

Household meter, mean power by the minute, local time in two columns:

\b
    fleetwatt import meter_household_1min.csv --meter-id =house-1 \\
        --time Date,Time --time-format "%d/%m/%Y %H:%M:%S" --tz Europe/Paris \\
        --kw Global_active_power --every 60s --voltage Voltage

The car's side of a charge:

\b
    fleetwatt import dc_session_vehicle_1min.csv --vehicle-id =car-1 \\
        --time timestamp --kwh kwh --soc soc --battery-temp battery_temp
"""


@click.command("import", help=_HELP)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--meter-id", metavar="COLUMN|ID", help="The lines are a meter's: its id.")
@click.option("--vehicle-id", metavar="COLUMN|ID", help="The lines are a vehicle's: its id.")
@click.option("--time", metavar="COLUMN[,COLUMN]", help="Timestamp; two columns are joined by a space.")
@click.option(
    "--time-format", metavar="FORMAT", help="As for strptime, or unix, or unix-ms.  [default: ISO 8601]"
)
@click.option("--tz", metavar="ZONE", help="Zone of times that have none, such as Europe/Paris.")
@click.option("--kwh", metavar="COLUMN", help="Energy of the interval in kWh.")
@click.option("--wh", metavar="COLUMN", help="Energy of the interval in Wh.")
@click.option("--kw", metavar="COLUMN", help="Mean power of the interval in kW; goes with --every.")
@click.option("--every", "every_s", type=Duration(), help="Length of the interval: kWh = kW * s / 3600.")
@click.option("--voltage", metavar="COLUMN|=VOLT", help="Voltage of a meter.")
@click.option("--soc", metavar="COLUMN|=PERCENT", help="State of charge of a vehicle.")
@click.option("--battery-temp", metavar="COLUMN|=CELSIUS", help="Battery temperature of a vehicle.")
@click.option("--decimal-comma", is_flag=True, help="Numbers are written 1,5.")
@click.option(
    "--format", "file_format", type=click.Choice(["csv", "ndjson"]), help="[default: by the file's name]"
)
@click.option("--delimiter", help="One character, or tab.  [default: found out: , ; tab |]")
@click.option(
    "--encoding", default="utf-8", show_default=True, help="Encoding of a CSV file, such as cp1252."
)
@click.option("--dry-run", is_flag=True, help="Read and check everything, store nothing; needs no database.")
@click.option(
    "--report",
    "--rejects",
    "report_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write rejected lines there: NDJSON if it is called .ndjson, otherwise CSV.",
)
@click.option(
    "--strict/--no-strict",
    default=True,
    show_default=True,
    help="Exit with 1 when a line was rejected, or with 0 all the same.",
)
@data_dir_option
def command(
    *,
    file: Path,
    file_format: Literal["csv", "ndjson"] | None,
    delimiter: str | None,
    encoding: str,
    dry_run: bool,
    report_file: Path | None,
    strict: bool,
    data_dir: Path | None,
    **mapping: Any,
) -> None:
    """Read the options, import, report."""
    settings = client_settings(data_dir)
    log.configure(settings.log_level, settings.log_format)
    options = ImportOptions(
        path=file,
        mapping=Mapping(**mapping),
        format=file_format,
        delimiter=delimiter,
        encoding=encoding,
        dry_run=dry_run,
    )
    if report_file is not None and report_file.exists() and file.exists() and report_file.samefile(file):
        raise ImportFileError("--report would overwrite the file that is imported")
    with (
        rejects_file(report_file) if report_file else nullcontext() as on_rejected,
        file_progress(file.name) as show,
    ):
        report = asyncio.run(import_file(options, settings, show, on_rejected))
    click.echo(report.summary())
    for line in report.details():
        click.echo(f"  {log.printable(line)}")
    if strict and report.rejected:
        sys.exit(1)
