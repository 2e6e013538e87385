"""Examples of the OpenAPI document: composed of what is described, and moved to the present."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from service.web.apiexamples import compose, filled, fresh

TIME: Final = {"type": "string", "format": "date-time"}


@pytest.mark.parametrize(
    ("now", "moved"),
    [
        ("2026-01-31T12:59:59", b'"2026-01-31T12:00:00Z" "2026-01-30T12:00:00Z" "example-2026-01-31T11"'),
        ("2026-01-31T13:00:00", b'"2026-01-31T13:00:00Z" "2026-01-30T13:00:00Z" "example-2026-01-31T12"'),
        ("2028-03-01T00:30:00", b'"2028-03-01T00:00:00Z" "2028-02-29T00:00:00Z" "example-2028-02-29T23"'),
        ("2026-01-01T00:00:00", b'"2026-01-01T00:00:00Z" "2025-12-31T00:00:00Z" "example-2025-12-31T23"'),
    ],
)
def test_times_are_moved(now: str, moved: bytes) -> None:
    """The hour 12 of the examples is the current one; the others keep their distance from it."""
    text = b'"2026-01-31T12:00:00Z" "2026-01-30T12:00:00Z" "example-2026-01-31T11"'
    assert fresh(text, datetime.fromisoformat(now).replace(tzinfo=UTC)) == moved


def test_what_is_no_time_of_an_example_stays() -> None:
    """Versions, dates without an hour, other years."""
    text = b"3.1.0 2026-01-31 2031-05-01T12:00:00Z RFC 3339"
    assert fresh(text, datetime(2027, 1, 1, tzinfo=UTC)) == text


@pytest.mark.parametrize(
    ("schema", "name", "value"),
    [
        ({"type": "number"}, "soc", 63.5),
        ({"type": "integer"}, "soc", 1),
        ({"type": "number"}, "never heard of", 1.0),
        (TIME, "never heard of", "2026-01-31T12:00:00Z"),
        ({"oneOf": [TIME, {"type": "null"}]}, "failedAt", None),
        ({"oneOf": [{"type": "number"}, {"type": "null"}]}, "efficiencyRatio", 0.906863),
        ({"type": "string", "enum": ["open", "closed"]}, "state", "open"),
        ({"type": "array", "items": {"type": "string", "enum": ["ingest", "read"]}}, "scopes", ["read"]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "byCode", {"out_of_range": 1}),
    ],
)
def test_values_are_chosen_by_name_and_type(schema: dict[str, Any], name: str, value: Any) -> None:
    """A name's value where the type allows it, else one that the type allows."""
    assert compose(schema, name) == value


def test_of_fields_that_may_be_absent_the_first_is_shown() -> None:
    """Often one of them excludes the others."""
    fields = {"threshold": {"type": "number"}, "hours": {"type": "array", "items": TIME}, "days": TIME}
    schema = {"type": "object", "properties": fields, "required": ["threshold"]}
    assert compose(schema) == {"threshold": 0.85, "hours": ["2026-01-31T12:00:00Z"]}


def test_a_title_names_one_schema() -> None:
    """It is said once, and two that differ under one title are a mistake of ours."""

    def document(*kinds: str) -> dict[str, Any]:
        return {
            "paths": {
                f"/{number}": {
                    "get": {
                        "responses": {
                            "200": {
                                "content": {
                                    "application/json": {
                                        "schema": {
                                            "type": "object",
                                            "title": "Thing",
                                            "properties": {"soc": {"type": kind}},
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                for number, kind in enumerate(kinds)
            }
        }

    good = filled(document("number", "number"))
    media = good["paths"]["/1"]["get"]["responses"]["200"]["content"]["application/json"]
    assert media == {"schema": {"$ref": "#/components/schemas/Thing"}, "example": {"soc": 63.5}}
    assert list(good["components"]["schemas"]) == ["Thing"]
    with pytest.raises(ValueError, match="Thing"):
        filled(document("number", "string"))
