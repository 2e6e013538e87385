"""Small JSON bodies: strict, and a mistake is a 400 that names the field."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from service.web.problems import Problem

StructT = TypeVar("StructT", bound=msgspec.Struct)


def decode_body(body: bytes, struct: type[StructT]) -> StructT:
    """Decode a JSON object into a struct.

    Raises Problem 400. When the object does not fit, each field is decoded by itself, so that it is the
    field's own type that says which one is to blame, not the text of an error.
    """
    try:
        try:
            return msgspec.json.decode(body, type=struct)
        except msgspec.ValidationError:
            # Looking for the field may find that the rest is no JSON at all.
            problem = _blame(body, struct)
    except RecursionError:
        raise Problem(400, "too_deep", "the body is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Problem(400, "malformed_json", f"the body is not valid JSON: {error}") from None
    raise problem


def _blame(body: bytes, struct: type[msgspec.Struct]) -> Problem:
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return Problem(400, "wrong_shape", "the body must be a JSON object")
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        if name not in raw:
            if field.required:
                return Problem(400, "missing", f'"{name}" is missing', field=name)
            continue
        try:
            msgspec.json.decode(raw[name], type=field.type)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            return Problem(400, "bad_value", f'"{name}" is not valid: {error}', field=name)
    return Problem(400, "wrong_shape", "the body does not fit together")
