"""The units of deploy/systemd, read: what they call and set is there, and they may do little else."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from service.cli import group
from service.settings import PREFIX, load
from tests.deploy.files import service
from tests.deploy.units import ANALYZE, FOLDER, PROGRAM, UNITS, assigned, said

# A service without any hardening has 96, one of Debian's with some 50.
_MOST_EXPOSED = 20

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not on PATH")


@pytest.mark.parametrize("unit", UNITS)
def test_the_command_exists(unit: str) -> None:
    """It is the installed program, with a command and options that it has."""
    [line] = said(unit)["ExecStart"]
    program, name, *arguments = shlex.split(line)
    assert program == PROGRAM
    command = group.get_command(click.Context(group), name)
    assert command is not None
    command.make_context(name, arguments)


@pytest.mark.parametrize("unit", UNITS)
def test_settings_are_known(unit: str) -> None:
    """Each variable is a setting with a value that it takes, also what the settings' file only proposes."""
    [line] = said(unit)["EnvironmentFile"]
    assert line == "/etc/fleetwatt/settings"
    proposed = re.sub(r"^#(?=FLEETWATT_)", "", (FOLDER / "settings").read_text(), flags=re.MULTILINE)
    ours = {
        name: value.replace("%i", "0")
        for name, value in (assigned(said(unit).get("Environment", [])) | assigned([proposed])).items()
        if name.startswith(PREFIX) and not name.endswith("_URL_FILE") and not name.endswith("_SHARE_FILE")
    }
    assert len(ours) > 8
    load(ours)


def test_secrets_may_be_files() -> None:
    """What is proposed as a file of a secret is a setting whose value may stand in one."""
    names = re.findall(
        r"^#?(FLEETWATT_\w+_(?:URL|SHARE)_FILE)=", (FOLDER / "settings").read_text(), re.MULTILINE
    )
    assert len(names) == 2
    for name in [*names, f"{PREFIX}MIGRATE_DATABASE_URL_FILE"]:
        assert load({name: ""}) == load({})
    assert f"{PREFIX}MIGRATE_DATABASE_URL_FILE" in (FOLDER / "fleetwatt").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_it_comes_back_and_ends_in_order(unit: str) -> None:
    """It is started again for good; one process hears the signal and has the time that it may need."""
    unit_said = said(unit)
    assert unit_said["Restart"] == ["always"]
    assert unit_said["StartLimitIntervalSec"] == ["0"]
    assert unit_said["KillMode"] == ["mixed"]
    assert unit_said["WantedBy"] == ["multi-user.target"]
    [stop] = unit_said["TimeoutStopSec"]
    other = {"fleetwatt-serve.service": "api", "fleetwatt-worker@.service": "worker"}.get(unit)
    assert f"{stop}s" == (service(other)["stop_grace_period"] if other else "120s")


def test_they_are_hardened_alike() -> None:
    """No unit has a right that the others are denied, but for the folder of the data."""

    def hardening(unit: str) -> str:
        text = (FOLDER / unit).read_text()
        return text[text.index("\nUser=fleetwatt") :]

    assert len({hardening(unit) for unit in UNITS}) == 1
    assert [unit for unit in UNITS if "StateDirectory" in said(unit)] == ["fleetwatt.service"]


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """Give the units, copied, with a program that is there."""
    for unit in UNITS:
        (tmp_path / unit).write_text((FOLDER / unit).read_text().replace(PROGRAM, sys.executable))
    return [str(tmp_path / unit) for unit in UNITS]


@needs_systemd
def test_systemd_takes_them(installed: list[str]) -> None:
    """It knows each word in them."""
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", "--recursive-errors=no", *installed],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_they_may_do_little(installed: list[str]) -> None:
    """By systemd's own count."""
    for unit in installed:
        subprocess.run(
            [str(ANALYZE), "security", "--offline=true", f"--threshold={_MOST_EXPOSED}", unit],
            check=True, stdout=subprocess.DEVNULL, timeout=50,
        )  # fmt: skip
