"""What `just check` makes of the answers of a service that knows vulnerabilities."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import audit, servers

_FOUND = {
    "vulns": [
        {
            "id": "FOUND-1",
            "summary": "a hole",
            "affected": [
                {
                    "package": {"name": "idna", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
                }
            ],
        }
    ]
}


@contextmanager
def _service(found_in: str | None) -> Iterator[list[str]]:
    """Answer on loopback as such a service does; give the options that make pip-audit ask there."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(_FOUND if asked["package"]["name"] == found_in else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield _options(server.server_port)
        finally:
            server.shutdown()


def _options(port: int) -> list[str]:
    return ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/"]


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a lock file of three packages; what it is asked about goes to loopback, by no proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = tmp_path / "requirements.lock"
    digest = "0" * 64
    names = ("anyio==4.0", "idna==3.0", "rich==14.0")
    file.write_text("".join(f"{name} \\\n    --hash=sha256:{digest}\n" for name in names))
    return file


def test_nothing_found(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without findings it passes, and says how much it looked at."""
    with _service(None) as options:
        assert audit.main(lock, options) == 0
    assert capsys.readouterr().out == "pip-audit: 3 of 3 packages known there, 0 vulnerabilities\n"


def test_a_finding_fails(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding is told by package, and fails the check."""
    with _service("idna") as options:
        assert audit.main(lock, options) == 1
    assert "idna 3.0: FOUND-1, mended in ['99']" in capsys.readouterr().out


def test_nobody_to_ask(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing answers the check passes, and says that it was skipped."""
    assert audit.main(lock, _options(servers.free_port())) == 0
    assert capsys.readouterr().out == "pip-audit: skipped: no vulnerability service here\n"
