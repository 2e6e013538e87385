"""The short form of `just chaos`: each fault once, against small engines of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from service import paths
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Account, Ledger
from tests.chaos.load import Client
from tests.chaos.publisher import Publisher
from tests.chaos.rounds import Backlog, Result
from tests.chaos.soak import is_flat

# Other tests run beside these: time alone must not fail them.
_RECOVERY_MAX_S = 30.0
_ONE = ("--services", "1", "--workers", "1")
_SHARING = ("--services", "1", "--workers", "2")
# Each group is a test with an engine of its own, so that they spread over the processes of the suite.
_GROUPS = (
    (_SHARING, ["restart-broker", "cut-connections"]),
    (_ONE, ["restart-broker-alone", "kill-while-frozen"]),
    (_ONE, ["rolling-restart", "kill-postmaster"]),
    (_ONE, ["database-down", "slow-database"]),
)
_SMALL_DISK = ["full-disk", "full-wal"]


def chaos(tmp_path: Path, engine: tuple[str, ...], faults: list[str]) -> None:
    """Run each of some faults once; a process of its own, since it may change its mounts."""
    file = tmp_path / "chaos.json"
    command = [
        *(sys.executable, "-m", "tests.chaos", "--short", "--rounds", "1", "--faults", ",".join(faults)),
        *("--recovery", str(_RECOVERY_MAX_S), "--json", str(file), *engine),
    ]
    run = subprocess.run(
        command, cwd=Path(paths.__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-6000:]
    results = msgspec.json.decode(file.read_bytes(), type=list[Result])
    assert sorted(result.fault for result in results) == sorted(faults)
    for result in results:
        assert result.account.acknowledged > 200, result
        assert result.account.refused > 0, result
        assert result.recovery_s.keys() == {"h0", "q"}, result


def test_every_fault_of_the_short_form_has_its_group() -> None:
    """No fault is forgotten."""
    played = [*_SMALL_DISK, *(fault for _, faults in _GROUPS for fault in faults)]
    assert sorted(played) == sorted(name for name, fault in FAULTS.items() if fault.in_short)


@pytest.mark.parametrize(("engine", "faults"), _GROUPS, ids=["+".join(faults) for _, faults in _GROUPS])
def test_nothing_is_lost_whatever_fails(tmp_path: Path, engine: tuple[str, ...], faults: list[str]) -> None:
    """Nothing that was acknowledged is missing or stored twice, and each way in recovers by itself."""
    chaos(tmp_path, engine, faults)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_nothing_is_lost_when_a_disk_is_full(tmp_path: Path) -> None:
    """The database runs out of room, for its tables and for its log, and goes on once it has some again."""
    chaos(tmp_path, _ONE, _SMALL_DISK)


def test_the_proof_itself_can_fail() -> None:
    """A lost, a changed or a doubled reading, or an unwell answer, is named as a failure."""
    ledger = Ledger("r")
    key, _ = ledger.reading("h0-0", "meter")
    good = Result(
        fault="kill-worker",
        seed="s",
        account=Account(sent=1, acknowledged=1, stored=1),
        recovery_s={"q": 1.0},
        problems=[],
        causes={},
        exit_codes=[],
        notes=[],
        breaker=[],
        backlog=None,
        slowest_answer_s=0.1,
    )
    assert good.failures(10) == []
    for account in (
        Account(lost=[key]),
        Account(changed=[key]),
        Account(strangers=[key]),
        Account(twice=1),
        Account(states_wrong=["r-h0-0-m"]),
        Account(letters_lost=["{}"]),
        Account(letters_wrong=["refused"]),
        Account(sessions_wrong=["r-q-0-1"]),
    ):
        assert len(msgspec.structs.replace(good, account=account).failures(10)) == 1
    assert len(msgspec.structs.replace(good, problems=["500"]).failures(10)) == 1
    assert len(msgspec.structs.replace(good, recovery_s={"q": 11.0}).failures(10)) == 1
    for lag_s, failures in ((1.0, 0), (11.0, 1)):
        backlog = Backlog(readings=1, seconds=1.0, largest_batch=1, live_lag_p95_s=lag_s)
        starved = msgspec.structs.replace(good, fault="database-down", backlog=backlog)
        assert len(starved.failures(10)) == failures


def test_the_load_follows_from_the_seed() -> None:
    """The same seed gives the same requests and messages, but for their times; another one does not."""

    def composed(seed: str) -> list[tuple[object, ...]]:
        ledger = Ledger("r")
        client = Client("http://localhost", "h0-0", ledger, 0.1, seed)
        publisher = Publisher(1883, "q-0", ledger, 0.1, seed)
        posts = [client.compose() for _ in range(50)]
        messages = [publisher.compose() for _ in range(50)]
        return [
            *((len(post.keys), [ledger.bad[raw] for raw in post.bad], post.headers) for post in posts),
            *((message.topic, len(message.keys), bool(message.trip)) for message in messages),
        ]

    assert composed("a") == composed("a")
    assert composed("a") != composed("b")


def test_growth_is_told_from_flat_memory() -> None:
    """Memory that levels off is flat; one that goes on growing is not."""
    assert is_flat([100.0, 300.0, *[500.0] * 20, *[505.0] * 20])
    assert not is_flat([float(mb) for mb in range(100, 700, 10)])
