"""What tests of the doctor share: brokers with configurations of their own, history, and what was found."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from service.doctor.examine import Report
from service.doctor.finding import Finding
from service.embedded import mosquitto
from tests.support import servers


@contextmanager
def running_broker(text: str) -> Iterator[tuple[int, Path]]:
    """Run a Mosquitto with a configuration of the test's own; give its port and the file."""
    with servers.scratch_dir() as folder:
        port = servers.free_port()
        file = folder / "mosquitto.conf"
        file.write_text(text.format(port=port))
        file.chmod(0o644)
        command = [str(servers.apache_root() / "usr/sbin/mosquitto"), "-c", str(file)]
        with servers.process(command, folder / "log", signal.SIGTERM):
            servers.wait_for_port(port, folder / "log")
            yield port, file


@contextmanager
def good_broker() -> Iterator[tuple[int, Path]]:
    """Run the broker as it is embedded."""
    with servers.scratch_dir() as folder:
        port = servers.free_port()
        command = mosquitto.command_line(servers.apache_root(), folder / "mosquitto", port, servers.ACCOUNT)
        with servers.process(command, folder / "log", signal.SIGTERM):
            servers.wait_for_port(port, folder / "log")
            yield port, folder / "mosquitto/mosquitto.conf"


def found(report: Report) -> set[tuple[str, str]]:
    """Give severity and check of what is to be done."""
    return {(each.severity, each.check) for each in report.findings if each.severity != "note"}


def has(report: Report, check: str, words: str) -> Finding:
    """Give the finding of a check that has these words."""
    for finding in report.findings:
        if finding.check == check and words in finding.what:
            return finding
    raise AssertionError((check, words, report.findings))


def history(owner: psycopg.Connection[Any], days: int) -> None:
    """Store readings of some days up to now, a reading an hour, as a worker would have."""
    owner.execute(
        "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) "
        "select 'm', now() - n * interval '1 hour', 0.5, 230 from generate_series(0, %s) as n",
        (24 * days,),
    )
    owner.execute(
        "insert into ingest_minute (minute, writer, kind, accepted) values "
        "(date_trunc('minute', now()), 'mqtt/w-0', 'meter', 1), "
        "(date_trunc('minute', now()) - interval '2 hours', 'mqtt/w-0', 'meter', 1)"
    )
