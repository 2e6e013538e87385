"""Secrets in settings: which they are, how they are read from files, and what people get to see of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from service.errors import SettingsError

# Mark a setting as a secret, Meta(extra=...): that much of it is hidden, and it may be given as a file.
PASSWORD_WITHIN: Final[dict[str, Any]] = {"hide": "password"}  # of a URL or a connection string
PATH_WITHIN: Final[dict[str, Any]] = {"hide": "path"}  # a webhook's address: all but scheme and host
WHOLE: Final[dict[str, Any]] = {"hide": "whole"}

FILE_SUFFIX: Final = "_FILE"
_LONGEST: Final = 64 * 1024


def hide(mark: str | None, value: str) -> str:
    """Give what people may see of a setting's value, by what its mark says."""
    if mark is None or not value:
        return value
    if mark == "whole":
        return "***"
    shown = hide_password(value)
    return _hide_path(shown) if mark == "path" else shown


def read_file(variable: str, path: str) -> str:
    """Read a secret from a file; a line end after it, which editors add, does not belong to it.

    Raises SettingsError that names the variable and the file, never what is in it.
    """
    try:
        with Path(path).open("rb") as file:
            value = file.read(_LONGEST + 1).decode()
    except OSError as error:
        raise SettingsError(f"{variable}: cannot read {path!r} ({error.strerror})") from None
    except ValueError:
        raise SettingsError(f"{variable}: {path!r} is not a text in UTF-8") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value or len(value) > _LONGEST or not value.isprintable():
        raise SettingsError(f"{variable}: {path!r} must hold one line and nothing else: the secret")
    return value


# The login of a URL ends at its last @: a password that should have been escaped stays hidden, too.
_LOGIN: Final = re.compile(r"^([A-Za-z][\w+.\-]*://[^:@/?#]*):.*@", re.DOTALL)
# password and sslpassword, in the query of a URL, and in a connection string of the form key=value.
_IN_QUERY: Final = re.compile(r"(password\s*=)[^&]*", re.IGNORECASE)
_IN_STRING: Final = re.compile(
    r"(password\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:\\.|[^\s\\])+)", re.IGNORECASE | re.DOTALL
)


def hide_password(url: str) -> str:
    """Replace each password in a URL or connection string by three asterisks, for logs and for people."""
    if "://" in url.partition("=")[0]:
        return _IN_QUERY.sub(r"\1***", _LOGIN.sub(r"\1:***@", url))
    return _IN_STRING.sub(r"\1***", url)


def _hide_path(url: str) -> str:
    """Leave only scheme and host: the path and query of a webhook's address are often a secret."""
    start, scheme_end, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return url if host == rest.rstrip("/") else f"{start}{scheme_end}{host}/***"
