"""The receiving end of sd_notify: a child says READY=1 on a datagram socket, as it would to systemd."""

from __future__ import annotations

import os
import secrets
import socket
from types import TracebackType
from typing import Self


class Listener:
    """Hears whether a child is ready. The socket is abstract: no file, no limit on a path's length."""

    def __init__(self) -> None:
        self.address = f"@fleetwatt-{os.getpid()}-{secrets.token_hex(4)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._ready = False

    def __enter__(self) -> Self:
        """Open the socket."""
        self._socket.bind("\0" + self.address[1:])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        self._socket.close()

    def is_ready(self) -> bool:
        """Tell whether READY=1 has arrived."""
        try:
            while not self._ready:
                self._ready = b"READY=1" in self._socket.recv(4096).splitlines()
        except BlockingIOError:
            pass
        return self._ready
