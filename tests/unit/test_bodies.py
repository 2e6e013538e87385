"""Small JSON bodies: whatever is wrong with them is a 400 that says what."""

from __future__ import annotations

import pytest

from service.sessions.model import SessionUpdate
from service.web.bodies import decode_body
from service.web.problems import Problem


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"[]", "wrong_shape"),
        (b'{"vehicleId": 5}', "bad_value"),
        # The first mistake is a field's; only behind it does the JSON break.
        (b'{"vehicleId": 5, ', "malformed_json"),
        (b'{"vehicleId": 5, "x": "\xff"}', "bad_value"),
        (b'{"vehicleId": 5, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
        (b'{"vehicleId": "\xff"}', "malformed_json"),
    ],
)
def test_what_is_wrong(body: bytes, code: str) -> None:
    """The code says what is wrong, and nothing but a Problem is raised."""
    with pytest.raises(Problem) as caught:
        decode_body(body, SessionUpdate)
    assert (caught.value.status, caught.value.code) == (400, code)
