"""Imports through a writer that only records: line numbers, places in a body, reports, and real files."""

from __future__ import annotations

import asyncio
import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.import_file import command
from service.errors import ImportFileError
from service.importer.mapping import Mapping
from service.importer.report import ImportReport, RejectedLine, rejects_file
from service.importer.run import ImportOptions, import_file, import_through
from service.ingest.decode import raw_part
from service.ingest.outcome import Decoded, Outcome
from service.ingest.refusals import conflict
from service.readings import MeterReading, Reading, TimeRule, VehicleReading
from service.settings import Settings

RULE = TimeRule(now=lambda: datetime(2026, 6, 1, tzinfo=UTC).timestamp())
DATA = Path(__file__).parents[2].parent / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real measurements in {DATA}")

METERS = "meterId,timestamp,kwhConsumedAc,voltage\n"
HOUSEHOLD = Mapping(
    meter_id="=house-1",
    time="Date,Time",
    time_format="%d/%m/%Y %H:%M:%S",
    tz="Europe/Paris",
    kw="Global_active_power",
    every_s=60,
    voltage="Voltage",
)


class Recorder:
    """Takes submissions as the pipeline does; the readings at `conflicts` places of each are conflicts."""

    def __init__(self, conflicts: tuple[int, ...] = ()) -> None:
        self.submitted: list[tuple[Decoded, str]] = []
        self.in_flight = self.most_in_flight = 0
        self._conflicts = conflicts

    async def submit(self, decoded: Decoded, origin: str) -> Outcome:
        """Record, once it is committed, and refuse the conflicts in the words of the writer."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self.commit()
        self.in_flight -= 1
        self.submitted.append((decoded, origin))
        refused = [conflict(decoded, place) for place in self._conflicts if place < len(decoded.readings)]
        return Outcome(accepted=len(decoded.readings) - len(refused), duplicates=0, rejections=refused)

    async def commit(self) -> None:
        """Take a while."""
        await asyncio.sleep(0.01)

    @property
    def readings(self) -> list[Reading]:
        """All readings, in the order of their timestamps."""
        every = [reading for decoded, _ in self.submitted for reading in decoded.readings]
        return sorted(every, key=lambda reading: reading.recorded_at)


class Overtaken(Recorder):
    """One that commits the first submission after the second, which must come while it is under way."""

    def __init__(self, conflicts: tuple[int, ...] = ()) -> None:
        super().__init__(conflicts)
        self._begun = 0
        self._second = asyncio.Event()

    async def commit(self) -> None:
        """Let the first one wait for the second, and the others for nobody."""
        self._begun += 1
        if self._begun == 1:
            await self._second.wait()
        else:
            self._second.set()


def run(
    recorder: Recorder, path: Path, mapping: Mapping | None = None
) -> tuple[ImportReport, list[RejectedLine]]:
    """Import a file through a recorder."""
    rejected: list[RejectedLine] = []
    options = ImportOptions(path=path, mapping=mapping or Mapping())
    report = asyncio.run(import_through(recorder.submit, options, RULE, None, rejected.append))
    return report, rejected


def meter_line(minute: int, kwh: str = "0.5") -> str:
    """Give a line of METERS."""
    return f"m-1,2026-05-{1 + minute // 1440:02}T{minute // 60 % 24:02}:{minute % 60:02}:00Z,{kwh},230\n"


def test_line_numbers_with_blanks_and_bad_lines(tmp_path: Path) -> None:
    """The report names the lines of the file, header and blank lines included."""
    path = tmp_path / "a.csv"
    good = meter_line(1)
    path.write_text(
        "\ufeff\n" + METERS + good + "\n\n" + meter_line(2, "?") + '"open\n' + meter_line(3) + "x\n"
    )
    recorder = Recorder()
    report, rejected = run(recorder, path)
    assert [(line.line, line.code, line.raw) for line in rejected] == [
        (6, "missing", meter_line(2, "?").strip().encode()),
        (7, "malformed_csv", b'"open'),
        (9, "wrong_columns", b"x"),
    ]
    assert (report.lines, report.accepted, report.duplicates, report.rejected) == (5, 2, 0, 3)
    assert recorder.submitted[0][1] == "import:a.csv:3-9"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_places_are_in_step_with_the_body(tmp_path: Path, end: str) -> None:
    """A conflict found by the writer gets the bytes and the number of its own line."""
    lines = [
        METERS.strip(),
        "",
        meter_line(1).strip(),
        '"m-1',
        meter_line(2).strip(),
        " \t ",
        meter_line(3).strip(),
    ]
    path = tmp_path / "a.csv"
    path.write_text(end.join(lines), newline="")
    recorder = Recorder(conflicts=(1,))
    report, rejected = run(recorder, path)
    assert [(line.line, line.code) for line in rejected] == [(4, "malformed_csv"), (5, "conflict")]
    assert rejected[1].raw.decode() == lines[4]
    assert (report.accepted, report.rejected, report.conflicts) == (2, 2, 1)
    (decoded, _) = recorder.submitted[0]
    for index, reading in zip(decoded.indices, decoded.readings, strict=True):
        assert f"{reading.recorded_at:%Y-%m-%dT%H:%M}".encode() in raw_part(decoded, index)
    for rejection in decoded.rejections:
        assert raw_part(decoded, rejection.index) == rejection.raw


def test_a_long_file_is_handed_over_in_blocks(tmp_path: Path) -> None:
    """Several blocks are under way, not all of them; counts and line order do not depend on commits."""
    path = tmp_path / "long.csv.gz"
    count = 43_000
    body = "".join(meter_line(n, "?" if n % 1000 == 0 else "0.5") for n in range(count))
    path.write_bytes(gzip.compress((METERS + body).encode()))
    recorder = Overtaken(conflicts=(10,))
    report, rejected = run(recorder, path)
    assert report.lines == count == report.accepted + report.rejected
    assert [line.line for line in rejected if line.code == "missing"] == list(range(2, count + 2, 1000))
    assert [line.line for line in rejected] == sorted(line.line for line in rejected)
    for line in rejected:
        assert (
            line.raw.decode() == meter_line(line.line - 2, "?" if line.code == "missing" else "0.5").strip()
        )
    assert len(recorder.submitted) > recorder.most_in_flight > 1
    assert max(len(decoded.readings) for decoded, _ in recorder.submitted) <= 5000


def test_ndjson(tmp_path: Path) -> None:
    """NDJSON goes through the decoder of HTTP, kinds mixed, with the numbers of its lines."""
    path = tmp_path / "a.jsonl.gz"
    time = '"timestamp":"2026-05-01T12:00:00Z"'
    meter = f'{{"meterId":"m",{time},"kwhConsumedAc":1,"voltage":230}}'
    vehicle = f'{{"vehicleId":"v",{time},"soc":50,"kwhDeliveredDc":0.9,"batteryTemp":20}}'
    path.write_bytes(gzip.compress(f"{meter}\n\n{{\n{vehicle}".encode()))
    recorder = Recorder()
    report, rejected = run(recorder, path)
    assert [type(reading) for reading in recorder.readings] == [MeterReading, VehicleReading]
    assert [(line.line, line.code, line.raw) for line in rejected] == [(3, "malformed_json", b"{")]
    assert (report.lines, report.devices) == (3, {"m", "v"})


@pytest.mark.parametrize(
    ("name", "text", "mapping", "message"),
    [
        ("a.csv", "", Mapping(), "a.csv is empty"),
        ("a.csv", "\n \n", Mapping(), "a.csv is empty"),
        ("a.csv", "a,b\n1,2\n", Mapping(), "the file has a, b"),
        ("a.csv", '{"meterId":"m"}\n', Mapping(), "--format ndjson"),
        ("a.ndjson", '{"meterId":"m"}\n', Mapping(meter_id="m"), "--meter-id does not apply"),
        ("a.csv", "a\n", Mapping(meter_id="m", vehicle_id="v"), "not both"),
    ],
)
def test_files_that_cannot_be_imported(
    tmp_path: Path, name: str, text: str, mapping: Mapping, message: str
) -> None:
    """An empty file, a header without the columns, or options that do not fit: an error, nothing stored."""
    (tmp_path / name).write_text(text)
    recorder = Recorder()
    with pytest.raises(ImportFileError, match=message):
        run(recorder, tmp_path / name, mapping)
    assert not recorder.submitted


def test_a_header_alone_is_an_import_of_nothing(tmp_path: Path) -> None:
    """A file with a header and no lines is imported, with all counts 0."""
    (tmp_path / "a.csv").write_text(METERS)
    report, rejected = run(Recorder(), tmp_path / "a.csv")
    assert (report.summary(), rejected) == (
        "read 0 lines: accepted 0, duplicates 0, rejected 0 (conflicts 0)",
        [],
    )


def test_what_came_before_a_broken_place_is_stored(tmp_path: Path) -> None:
    """A bad byte deep in a file fails the import, names its line, and says what was stored until there."""
    path = tmp_path / "a.csv"
    body = METERS + "".join(meter_line(n) for n in range(12_000))
    path.write_bytes(body.encode() + b"caf\xe9,\n")
    recorder = Recorder()
    with pytest.raises(
        ImportFileError, match=r"line 12002: .* \(until there: read (\d+) lines: accepted \1,"
    ):
        run(recorder, path)
    assert recorder.in_flight == 0
    assert 9_000 < len(recorder.readings) < 12_000


def test_an_error_of_the_writer_ends_the_import(tmp_path: Path) -> None:
    """When a submission fails, the error comes out and nothing is left under way."""
    path = tmp_path / "a.csv"
    path.write_text(METERS + "".join(meter_line(n) for n in range(30_000)))

    async def fail(decoded: Decoded, origin: str) -> Outcome:
        await asyncio.sleep(0)
        raise ConnectionResetError(f"{origin}: {len(decoded.readings)}")

    with pytest.raises(ConnectionResetError, match=r"import:a\.csv:2-"):
        asyncio.run(import_through(fail, ImportOptions(path=path), RULE))


def test_reasons_are_bounded_and_counted(tmp_path: Path) -> None:
    """Refusals are grouped by field and code, with a count and the first lines; --report has them all."""
    report = ImportReport()
    with rejects_file(tmp_path / "r.csv") as write:
        for number in range(2, 1002):
            line = RejectedLine(number, "voltage", "out_of_range", f"{number} is too much", b"a,\xff")
            report.reject(line)
            write(line)
    (detail,) = report.details()
    assert detail == ("1000 x out_of_range (voltage): 2 is too much; lines 2, 3, 4, 5, 6, 7, 8, 9, ...")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:2] == [
        ["line", "field", "code", "message", "raw"],
        ["2", "voltage", "out_of_range", "2 is too much", "a,\\xff"],
    ]
    assert len(rows) == 1001


@real_data
def test_household_file() -> None:
    """The recorded household: every minute is read, and the four lines with "?" are named."""
    seen: list[tuple[int, int | None]] = []
    rejected: list[RejectedLine] = []
    options = ImportOptions(path=DATA / "meter_household_1min.csv", mapping=HOUSEHOLD, dry_run=True)
    report = asyncio.run(
        import_file(options, Settings(), lambda done, size: seen.append((done, size)), rejected.append)
    )
    assert (report.lines, report.accepted) == (21_996, 21_992)
    assert [(line.line, line.code) for line in rejected] == [
        (number, "missing") for number in (6841, 6842, 19726, 19727)
    ]
    size = options.path.stat().st_size
    assert seen[-1] == (size, size)


@real_data
def test_household_values() -> None:
    """The first minute of the household has its UTC time and kW/60 kWh."""
    recorder = Recorder()
    run(recorder, DATA / "meter_household_1min.csv", HOUSEHOLD)
    first = recorder.readings[0]
    assert first == MeterReading("house-1", datetime(2006, 12, 16, 16, 24, tzinfo=UTC), 4.216 / 60, 234.84)


@real_data
def test_both_sides_of_a_charge() -> None:
    """The recorded DC charge: the sums that its description gives."""
    recorder = Recorder()
    run(recorder, DATA / "dc_session_meter_1min.csv", Mapping(meter_id="=plug-1"))
    run(recorder, DATA / "dc_session_vehicle_1min.csv", Mapping(vehicle_id="=car-1"))
    meters = [reading for reading in recorder.readings if isinstance(reading, MeterReading)]
    vehicles = [reading for reading in recorder.readings if isinstance(reading, VehicleReading)]
    assert (len(meters), len(vehicles)) == (21, 26)
    assert sum(reading.kwh_consumed_ac for reading in meters) == pytest.approx(5.443621)
    first, last = meters[0].recorded_at, meters[-1].recorded_at
    within = [one.kwh_delivered_dc for one in vehicles if first <= one.recorded_at <= last]
    assert sum(within) == pytest.approx(5.344335)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give a folder in which no engine runs and no setting is made."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("FLEETWATT_DATABASE_URL", raising=False)
    # It would keep the runner's standard error, which is closed after the test, for all later tests.
    monkeypatch.setattr("service.log.configure", lambda *_: None)
    return tmp_path


def test_command_reports_and_exits(alone: Path) -> None:
    """A dry run prints counts and reasons, writes the report, and fails unless asked not to be strict."""
    path, rejects = alone / "a.csv", alone / "rejects.csv"
    path.write_text(METERS + meter_line(1) + meter_line(2, "?"))
    arguments = [str(path), "--dry-run", "--data-dir", str(alone), "--report", str(rejects)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1, result.output
    assert "read 2 lines: accepted 1, duplicates 0, rejected 1 (conflicts 0) - dry run" in result.output
    assert "1 x missing (kwhConsumedAc)" in result.output
    assert rejects.read_text().splitlines()[1].startswith("3,kwhConsumedAc,missing,")
    assert CliRunner().invoke(command, [*arguments, "--no-strict"]).exit_code == 0
    path.write_text(METERS + meter_line(1))
    assert CliRunner().invoke(command, arguments).exit_code == 0


def test_command_never_overwrites_its_input(alone: Path) -> None:
    """--report with the name of the file itself is refused, and the file is untouched."""
    path = alone / "a.csv"
    path.write_text(METERS)
    arguments = [str(path), "--dry-run", "--data-dir", str(alone), "--report", str(path)]
    assert isinstance(CliRunner().invoke(command, arguments).exception, ImportFileError)
    assert path.read_text() == METERS


def test_a_missing_input_leaves_no_rejects(alone: Path) -> None:
    """Where nothing can be imported a new file of rejects is not left behind, and an old one stays."""
    rejects = alone / "rejects.csv"
    arguments = [str(alone / "none.csv"), "--dry-run", "--data-dir", str(alone), "--rejects", str(rejects)]
    assert isinstance(CliRunner().invoke(command, arguments).exception, ImportFileError)
    assert not rejects.exists()
    rejects.write_text("of the last import\n")
    assert isinstance(CliRunner().invoke(command, arguments).exception, ImportFileError)
    assert rejects.read_text() == "of the last import\n"
    (alone / "none.csv").write_text(METERS + meter_line(1))
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert rejects.read_text().splitlines() == ["line,field,code,message,raw"]


def test_help_shows_both_examples() -> None:
    """The help holds a worked example of a meter and of a vehicle."""
    result = CliRunner().invoke(command, ["--help"], terminal_width=200)
    assert result.exit_code == 0
    assert "--kw Global_active_power --every 60s" in result.output
    assert "--vehicle-id =car-1" in result.output
