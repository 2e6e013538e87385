"""Rows to readings: columns, constants, units, and the words of a refusal."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImportFileError
from service.importer.dialect import DELIMITERS, split_rows
from service.importer.mapping import Mapping, RowReader
from service.importer.refusal import Refusal
from service.readings import MeterReading, Reading, TimeRule, VehicleReading

RULE = TimeRule(now=lambda: datetime(2026, 6, 1, tzinfo=UTC).timestamp())
HEADER = ["id", "t", "kwh", "kw", "v"]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
METER = Mapping(meter_id="id", time="t", kwh="kwh", voltage="v")


def read(mapping: Mapping, row: list[str] | None, header: list[str] = HEADER) -> Reading | Refusal:
    """Read one row."""
    return RowReader(mapping, header).read([row], RULE)[0]


def row(**cells: str) -> list[str]:
    """Give a good row of HEADER, with some cells changed."""
    good = {"id": "m-1", "t": "2026-05-01T12:00:00Z", "kwh": "0.25", "kw": "4.216", "v": "231.5"}
    return list({**good, **cells}.values())


def refused(mapping: Mapping, cells: list[str] | None) -> tuple[str | None, str]:
    """Give field and code of a refused row."""
    result = read(mapping, cells)
    assert isinstance(result, Refusal)
    return result.field, result.code


def test_a_meter_row() -> None:
    """Columns named by options become a meter reading."""
    assert read(METER, row()) == MeterReading("m-1", NOON, 0.25, 231.5)


def test_a_vehicle_row_by_usual_names() -> None:
    """Columns with the names of the API or the database need no option."""
    for header in (
        ["vehicleId", "timestamp", "soc", "kwhDeliveredDc", "batteryTemp"],
        ["vehicle_id", "recorded_at", "soc", "kwh_delivered_dc", "battery_temp"],
    ):
        cells = ["v-1", "2026-05-01T12:00:00Z", "63.5", "0.1", "-4"]
        assert read(Mapping(), cells, header) == VehicleReading("v-1", NOON, 63.5, 0.1, -4.0)


def test_power_and_interval() -> None:
    """Mean kW over a minute is kW/60 kWh, to the last bit; Wh are thousandths."""
    power = Mapping(meter_id="id", time="t", kw="kw", every_s=60, voltage="v")
    result = read(power, row())
    assert isinstance(result, MeterReading)
    assert result.kwh_consumed_ac == 4.216 / 60
    energy = read(Mapping(meter_id="id", time="t", wh="kwh", voltage="v"), row(kwh="250"))
    assert energy == MeterReading("m-1", NOON, 0.25, 231.5)


def test_constants() -> None:
    """`=VALUE` is a constant anywhere; a number that is no column is one too."""
    for voltage in ("=230", "230"):
        mapping = Mapping(meter_id="=house-1", time="t", kw="=6", every_s=600, voltage=voltage)
        assert read(mapping, row()) == MeterReading("house-1", NOON, 1.0, 230.0)
    assert read(Mapping(meter_id="=id", time="t", kwh="kwh", voltage="v"), row()) == MeterReading(
        "id", NOON, 0.25, 231.5
    )


@pytest.mark.parametrize("cell", ["", " ", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"])
@pytest.mark.parametrize(
    ("column", "field"), [("id", "meterId"), ("t", "timestamp"), ("kwh", "kwhConsumedAc"), ("v", "voltage")]
)
def test_missing_values(cell: str, column: str, field: str) -> None:
    """A cell that stands for no value is missing in every column."""
    assert refused(METER, row(**{column: cell})) == (field, "missing")


@pytest.mark.parametrize(
    ("cells", "field", "code"),
    [
        ({"id": "m 1"}, "meterId", "bad_id"),
        ({"id": "m" * 65}, "meterId", "bad_id"),
        ({"t": "2026-05-01T12:00:00"}, "timestamp", "naive_timestamp"),
        ({"t": "noon"}, "timestamp", "wrong_type"),
        ({"t": "2026-06-02T00:00:00Z"}, "timestamp", "future_timestamp"),
        ({"t": "0001-01-01T00:00:00Z"}, "timestamp", "too_old"),
        ({"kwh": "-0.1"}, "kwhConsumedAc", "out_of_range"),
        ({"kwh": "1000.5"}, "kwhConsumedAc", "out_of_range"),
        ({"kwh": "inf"}, "kwhConsumedAc", "out_of_range"),
        ({"kwh": "1_0"}, "kwhConsumedAc", "wrong_type"),
        ({"kwh": "0x10"}, "kwhConsumedAc", "wrong_type"),
        ({"v": "230 V"}, "voltage", "wrong_type"),
        ({"v": "2147483647"}, "voltage", "out_of_range"),
    ],
)
def test_refusals_name_field_and_code(cells: dict[str, str], field: str, code: str) -> None:
    """Each broken rule names the field by its JSON name and a stable code."""
    assert refused(METER, row(**cells)) == (field, code)


def test_retention_bounds_the_past() -> None:
    """Where raw retention is set, an older reading is refused as it is over HTTP."""
    rule = TimeRule(behind_s=86_400, now=RULE.now)
    (result,) = RowReader(METER, HEADER).read([row()], rule)
    assert isinstance(result, Refusal)
    assert (result.code, result.device_id) == ("too_old", "m-1")


def test_one_bad_row_hides_no_good_one() -> None:
    """Results stand in the order of the rows, good and bad."""
    rows = [row(), row(kwh="?"), row(v="5000"), None, row(t="2026-05-01T12:01:00Z")]
    results = RowReader(METER, HEADER).read(rows, RULE)
    codes = [one.code if isinstance(one, Refusal) else one.recorded_at.minute for one in results]
    assert codes == [0, "missing", "out_of_range", "malformed_csv", 1]


def test_shifted_columns_are_refused() -> None:
    """A row with too few or too many cells is nobody's; empty cells at its end do no harm."""
    assert refused(METER, row()[:-1]) == (None, "wrong_columns")
    assert refused(METER, [*row(), "5"]) == (None, "wrong_columns")
    assert read(METER, [*row(), "", ""]) == MeterReading("m-1", NOON, 0.25, 231.5)


def test_decimal_comma() -> None:
    """With --decimal-comma 0,25 is a quarter, and a point is refused: it may separate thousands."""
    mapping = Mapping(meter_id="id", time="t", kwh="kwh", voltage="v", decimal_comma=True)
    assert read(mapping, row(kwh="0,25", v="231,5")) == MeterReading("m-1", NOON, 0.25, 231.5)
    assert refused(mapping, row(kwh="1.234", v="231,5")) == ("kwhConsumedAc", "wrong_type")
    assert refused(mapping, row(kwh="1.234,5", v="231,5")) == ("kwhConsumedAc", "wrong_type")
    assert refused(mapping, row(kwh="?", v="231,5")) == ("kwhConsumedAc", "missing")
    without = read(METER, row(kwh="0,25"))
    assert isinstance(without, Refusal)
    assert "--decimal-comma" in without.message


def test_date_and_time_in_two_columns() -> None:
    """Columns are joined by a space; a column whose own name holds a comma is taken whole."""
    mapping = Mapping(
        meter_id="=m", time="d,t", time_format="%d/%m/%Y %H:%M", tz="Europe/Paris", kwh="kwh", voltage="=230"
    )
    expected = MeterReading("m", NOON, 0.5, 230.0)
    assert read(mapping, ["01/05/2026", "14:00", "0.5"], ["d", "t", "kwh"]) == expected
    assert read(mapping, ["01/05/2026 14:00", "0.5"], ["d,t", "kwh"]) == expected


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (Mapping(meter_id="id", vehicle_id="id"), "not both"),
        (Mapping(time="t"), "--meter-id or --vehicle-id"),
        (Mapping(meter_id="id"), "--time"),
        (Mapping(meter_id="id", time="t", kwh="kwh"), "--voltage"),
        (Mapping(meter_id="id", time="t", kwh="kwh", wh="kwh"), "not both"),
        (Mapping(meter_id="id", time="t", kw="kw", voltage="v"), "--every"),
        (Mapping(meter_id="id", time="t", kwh="kwh", every_s=60, voltage="v"), "--kw"),
        (Mapping(meter_id="id", time="t", kw="kw", every_s=0, voltage="v"), "longer"),
        (Mapping(meter_id="id", time="t", kwh="kwh", voltage="v", soc="v"), "--soc"),
        (
            Mapping(vehicle_id="id", time="t", kwh="kwh", soc="=5", battery_temp="=5", voltage="v"),
            "--voltage",
        ),
        (Mapping(meter_id="id", time="t", kwh="energy", voltage="v"), "--kwh energy: no such column"),
        (Mapping(meter_id="id", time="when", kwh="kwh", voltage="v"), "id, t, kwh, kw, v"),
        (Mapping(meter_id="house 1", time="t", kwh="kwh", voltage="v"), "id, t, kwh, kw, v"),
        (Mapping(meter_id="=", time="t", kwh="kwh", voltage="v"), "not an id of 1 to 64"),
        (Mapping(meter_id="idd", time="t", kwh="kwh", voltage="v"), "--meter-id idd: no such column"),
        (Mapping(meter_id="id", time="t", kwh="kwh", voltage="=high"), "must be a number"),
        (Mapping(meter_id="id", time="t", kwh="kwh", voltage="=2300"), "out of range"),
        (Mapping(meter_id="id", time="t", tz="Mars/Olympus", kwh="kwh", voltage="v"), "unknown zone"),
    ],
)
def test_options_that_cannot_be_fulfilled(mapping: Mapping, message: str) -> None:
    """Contradictory options and unknown columns are one clear line before any row is read."""
    with pytest.raises(ImportFileError, match=message) as caught:
        RowReader(mapping, HEADER)
    assert "\n" not in str(caught.value)


def test_a_column_name_that_occurs_twice() -> None:
    """A duplicate name is an error only where it is asked for."""
    header = [*HEADER, "kw"]
    assert read(METER, [*row(), "9"], header) == MeterReading("m-1", NOON, 0.25, 231.5)
    with pytest.raises(ImportFileError, match="several columns"):
        RowReader(Mapping(meter_id="id", time="t", kw="kw", every_s=60, voltage="v"), header)


_ids = st.text("abcXYZ019._:-", min_size=1, max_size=64).filter(lambda text: text.lower() not in {"na", "-"})
_offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_times = st.datetimes(datetime(1970, 1, 1), datetime(2026, 5, 30), timezones=_offsets)  # noqa: DTZ001


def _numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


_readings = st.lists(
    st.builds(VehicleReading, _ids, _times, _numbers(0, 100), _numbers(0, 1000), _numbers(-60, 150)),
    max_size=30,
)


@given(_readings, st.sampled_from(DELIMITERS), st.booleans())
def test_round_trip(readings: list[VehicleReading], delimiter: str, decimal_comma: bool) -> None:
    """Readings written as CSV come back equal, to the last bit, with every delimiter and decimal sign."""

    def number(value: float) -> str:
        return repr(value).replace(".", ",") if decimal_comma else repr(value)

    lines = []
    for one in readings:
        text = io.StringIO()
        numbers = [number(one.soc), number(one.kwh_delivered_dc), number(one.battery_temp)]
        csv.writer(text, delimiter=delimiter).writerow([one.device_id, one.recorded_at.isoformat(), *numbers])
        lines.append(text.getvalue().removesuffix("\r\n"))
    header = ["vehicleId", "timestamp", "soc", "kwhDeliveredDc", "batteryTemp"]
    reader = RowReader(Mapping(decimal_comma=decimal_comma), header)
    assert reader.read(split_rows(lines, delimiter), RULE) == readings
