"""Which account runs the embedded servers, and whether it can reach a folder.

PostgreSQL refuses to run as root. Started by root, the servers run as an unprivileged account; started by
anybody else, as that user.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Any, NamedTuple

from service.errors import EmbeddedError


class Account(NamedTuple):
    """An unprivileged account that root starts the servers as."""

    name: str
    uid: int
    gid: int

    def popen_options(self) -> dict[str, Any]:
        """Give the options of subprocess that drop root for good."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account(name: str) -> Account | None:
    """Give the account to drop to, or None when the caller is not root.

    Raises EmbeddedError when root asked for an account that does not exist or is root itself.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise EmbeddedError(
            f"there is no account {name!r} to run the servers as: set FLEETWATT_RUN_AS to one that exists"
        ) from None
    if entry.pw_uid == 0:
        raise EmbeddedError("PostgreSQL refuses to run as root: set FLEETWATT_RUN_AS to another account")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def closed_parent(path: Path, account: Account | None) -> Path | None:
    """Give the first existing folder on the way to `path` (or `path`) that the account may not enter."""
    if account is None:
        return None
    for folder in [*reversed(path.absolute().parents), path.absolute()]:
        if not folder.is_dir():
            return None
        info = folder.stat()
        if info.st_uid == account.uid:
            open_ = info.st_mode & stat.S_IXUSR
        elif info.st_gid == account.gid:
            open_ = info.st_mode & stat.S_IXGRP
        else:
            open_ = info.st_mode & stat.S_IXOTH
        if not open_:
            return folder
    return None


def give(path: Path, account: Account | None) -> None:
    """Make `path` belong to the account, if there is one to drop to."""
    if account is not None:
        os.chown(path, account.uid, account.gid)
