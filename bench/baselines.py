"""What ours is compared with, on the same rows and the same server: psql's copy, one transaction a reading.

It copies into hypertables of the same shape without our triggers: the most that the database can take on one
connection.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from bench import fleet, one_by_one
from bench.engine import Database, Engine, Load
from bench.results import Result, check, spread
from bench.shot import Block
from bench.sizes import Sizes

# Ours would pay for a vacuum of theirs.
_TABLES: Final = """
    create schema bench;
    create table bench.meter_reading (
        like meter_reading including defaults including constraints including indexes
    ) with (autovacuum_enabled = off);
    create table bench.vehicle_reading (
        like vehicle_reading including defaults including constraints including indexes
    ) with (autovacuum_enabled = off);
    select create_hypertable(
        'bench.meter_reading', by_range('recorded_at', interval '1 day'), create_default_indexes => false
    );
    select create_hypertable(
        'bench.vehicle_reading', by_range('recorded_at', interval '1 day'), create_default_indexes => false
    );
"""
_COPIED: Final = """
    select (select count(*) from bench.meter_reading) + (select count(*) from bench.vehicle_reading)
"""
_COLUMNS: Final[dict[fleet.Kind, str]] = {
    "meter": "meter_id, recorded_at, kwh_consumed_ac, voltage",
    "vehicle": "vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp",
}
_TIME: Final = re.compile(r"^Time: ([\d.]+) ms", re.MULTILINE)


class Baselines:
    """The baselines' tables in a database, and their turns."""

    def __init__(self, engine: Engine, database: Database) -> None:
        self._engine = engine
        self._database = database
        database.owner.execute(_TABLES.encode())
        database.owner.execute(one_by_one.TABLES.encode())

    def copy(self, block: Block, schema: str = "bench") -> float:
        """Store a block by psql's copy; give readings a second."""
        commands = [
            f"\\copy {schema}.{kind}_reading ({_COLUMNS[kind]}) from '{self._file(block, kind)}'"
            for kind in fleet.KINDS
        ]
        before = self._count(_COPIED) if schema == "bench" else self._database.rows()
        self._engine.settle()
        told = subprocess.run(
            [self._engine.psql, "-X", "-v", "ON_ERROR_STOP=1", "-c", "\\timing on",
             "-c", commands[0], "-c", commands[1], self._database.owner_url],
            check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip
        now = self._count(_COPIED) if schema == "bench" else self._database.rows()
        check(
            now - before == block.readings, f"\\copy was to store {block.readings}, and stored {now - before}"
        )
        return block.readings / sum(float(ms) / 1000 for ms in _TIME.findall(told))

    def transactions(self, block: Block) -> float:
        """Store a block in one transaction a reading; give readings a second."""
        before = self._count(one_by_one.ROWS)
        spec = {**block.spec(self._engine), "over": "transactions", "url": self._database.owner_url}
        with Load(spec) as load:
            self._engine.settle()
            load.start()
            told = load.result()
        now = self._count(one_by_one.ROWS)
        check(now - before == block.readings, f"{block.readings} were to be stored, {now - before} are")
        return float(told["readings"] / told["seconds"])

    def _count(self, statement: str) -> int:
        [(count,)] = self._database.owner.execute(statement.encode()).fetchall()
        return int(count)

    def _file(self, block: Block, kind: fleet.Kind) -> Path:
        file = self._engine.folder / f"{'-'.join(map(str, block))}-{kind}.copy"
        if not file.exists():
            made = fleet.minutes(block.first, block.minutes, block.devices, begin=self._engine.begin)
            rows: dict[fleet.Kind, list[str]] = {each: [] for each in fleet.KINDS}
            for reading in made[: block.limit]:
                rows[reading.kind].append(reading.row())
            for each in fleet.KINDS:
                file.with_name(f"{'-'.join(map(str, block))}-{each}.copy").write_text("".join(rows[each]))
        return file


def measure(engine: Engine, sizes: Sizes) -> Result:
    """Measure the baselines alone, and psql's copy into our own tables with their triggers."""
    result = Result("baselines", "psql \\copy, and one transaction a reading")
    found: dict[str, list[float]] = {"copy": [], "copy_with_triggers": [], "transactions": []}
    with engine.database() as database:
        baselines = Baselines(engine, database)
        for schema in ("bench", "public"):
            baselines.copy(Block(0, 1, sizes.devices), schema)
        for turn in range(sizes.rounds):
            block = Block(1 + turn * sizes.minutes, sizes.minutes, sizes.devices)
            found["copy"].append(baselines.copy(block))
            found["copy_with_triggers"].append(baselines.copy(block, "public"))
            found["transactions"].append(baselines.transactions(block.most(sizes.transactions)))
    for name, rates in found.items():
        result.figures |= spread(f"{name}_per_s", rates, 0)
    return result
