"""`just check`: pip-audit over requirements.lock, where a service that knows vulnerabilities can be asked.

pip-audit ends with 1 both for a finding and for a service that does not answer, and with 0 where the service
knows none of the packages. So its report is read, and one package is asked about before all of them are.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

LOCK: Final = Path(__file__).parents[2] / "requirements.lock"
_CONNECT_S: Final = 5
_PROBE_S: Final = 15
_ALL_S: Final = 180


def main(lock: Path, options: list[str]) -> int:
    """Audit a lock file; give 1 for findings, 0 for none or when nobody can be asked. Says which."""
    first = re.split(r"\n(?=\S)", lock.read_text(), maxsplit=1)[0]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as probe:
        probe.write(first)
        probe.flush()
        answers = bool(_known(_ask(Path(probe.name), options, _PROBE_S)))
    told = _ask(lock, options, _ALL_S) if answers else []
    known = _known(told)
    if not known:
        sys.stdout.write("pip-audit: skipped: no vulnerability service here\n")
        return 0
    findings = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {found['fix_versions']}"
        for package in known
        for found in package["vulns"]
    ]
    counts = f"{len(known)} of {len(told)} packages known there, {len(findings)} vulnerabilities"
    sys.stdout.write("".join(f"{line}\n" for line in [f"pip-audit: {counts}", *findings]))
    return 1 if findings else 0


def _ask(requirements: Path, options: list[str], limit_s: float) -> list[dict[str, Any]]:
    """Give what the service says of each package; nothing when it does not answer, or not in time."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--disable-pip",
        "--require-hashes", "--timeout", str(_CONNECT_S), "--progress-spinner", "off", "--format", "json",
        *options,
    ]  # fmt: skip
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
        packages: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return []
    return packages


def _known(packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out packages that the service does not know: nothing is said of them."""
    return [package for package in packages if "vulns" in package]


if __name__ == "__main__":
    sys.exit(main(LOCK, sys.argv[1:]))
