"""The compose file and the Dockerfile, read: schema, names, paths, and how little each container may do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from service import __version__
from service.settings import PREFIX, load
from tests.deploy.files import COMPOSE, DOCKERFILE, ENGINE, MAKE_SECRETS, ROOT, compose, dockerfile, service

SERVICES: Final = tuple(compose()["services"])
JOBS: Final = ("roles", "migrate")
# Exact versions: a tag such as 3 or latest is another image tomorrow.
PINNED: Final = re.compile(r"[a-z][a-z0-9/-]*:v?\d+\.\d+\.\d+(-[a-z0-9.-]+)?")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the secrets."""
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run([str(MAKE_SECRETS), str(folder), "broker.example"], check=True, stdout=subprocess.DEVNULL)
    return folder


def test_the_published_schema() -> None:
    """The file is what Compose takes."""
    subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("name", SERVICES)
def test_as_little_as_it_takes(name: str) -> None:
    """No container runs as root, writes into its image, gains rights, or takes the machine's whole memory."""
    said = service(name)
    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert set(said["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    user = dict(dockerfile())["USER"] if name in ENGINE else said["user"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(said)


@pytest.mark.parametrize("name", SERVICES)
def test_it_starts_in_order_and_is_looked_after(name: str) -> None:
    """What runs on has a check and comes back; a job ends; each waits for what it needs."""
    said = service(name)
    assert said["restart"] == ("no" if name in JOBS else "unless-stopped")
    assert ("healthcheck" in said) is (name not in JOBS)
    for other, how in said.get("depends_on", {}).items():
        job = other in JOBS
        assert how["condition"] == ("service_completed_successfully" if job else "service_healthy"), other


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    """Each image has an exact version; the engine's is that of the code."""
    image = service(name)["image"]
    assert PINNED.fullmatch(image) or re.fullmatch(r"timescale/timescaledb:\d+\.\d+\.\d+-pg17", image)
    assert (image == f"fleetwatt:{__version__}") is (name in ENGINE)


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_knows_its_settings(name: str, secrets: Path) -> None:
    """Each FLEETWATT_ variable is a setting, with a value that it takes, or names a secret's file."""
    environment = {
        variable: value.replace("/run/secrets", str(secrets))
        for variable, value in service(name)["environment"].items()
    }
    assert all(variable.startswith(PREFIX) for variable in environment)
    load(environment)


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_are_made_given_and_used(name: str, secrets: Path) -> None:
    """A service is given the secrets that its lines, or its configuration, name: all of them, no other."""
    said = service(name)
    given = said.get("secrets", [])
    for secret in given:
        source = compose()["secrets"][secret]["file"]
        assert (secrets / Path(source).name).is_file(), source
    texts = [str(said.get("command")), str(said.get("environment"))]
    configs = (compose()["configs"][config["source"]] for config in said.get("configs", []))
    texts.extend((ROOT / config["file"]).read_text() for config in configs)
    assert set(re.findall(r"/run/secrets/([\w.-]*\w)", " ".join(texts))) == set(given)


def test_no_secret_has_a_default(secrets: Path) -> None:
    """What the script makes differs each time, closed to others; made again, all of it stays."""
    before = {file: file.read_bytes() for file in secrets.rglob("*") if file.is_file()}
    subprocess.run([str(MAKE_SECRETS), str(secrets)], check=True, stdout=subprocess.DEVNULL)
    assert before == {file: file.read_bytes() for file in secrets.rglob("*") if file.is_file()}
    assert secrets.stat().st_mode & 0o777 == 0o700
    other = secrets.parent / "other"
    subprocess.run([str(MAKE_SECRETS), str(other)], check=True, stdout=subprocess.DEVNULL)
    for name in compose()["secrets"]:
        assert (other / name).read_bytes() != (secrets / name).read_bytes(), name
    assert not re.search(r"(?i)password[\"']?\s*[:=]\s*[\"']?(?!/run/secrets)\w", COMPOSE.read_text())


def test_all_that_is_declared_is_used() -> None:
    """Volumes, configurations and secrets: each is some service's, and its file is there."""
    used: dict[str, set[str]] = {"volumes": set(), "configs": set(), "secrets": set()}
    for name in SERVICES:
        said = service(name)
        used["volumes"] |= {volume.partition(":")[0] for volume in said.get("volumes", [])}
        used["configs"] |= {config["source"] for config in said.get("configs", [])}
        used["secrets"] |= set(said.get("secrets", []))
    for kind, names in used.items():
        assert names == set(compose()[kind]), kind
    for config in compose()["configs"].values():
        assert (ROOT / config["file"]).is_file(), config
        # Containers read it as users of their own.
        assert (ROOT / config["file"]).stat().st_mode & 0o004, config


def test_only_devices_reach_in_from_elsewhere() -> None:
    """All published ports but the devices' are this machine's alone."""
    ports = {name: service(name)["ports"] for name in SERVICES if "ports" in service(name)}
    assert ports.pop("broker") == ["8883:8883"]
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)


def test_prometheus_asks_who_answers() -> None:
    """Each target is a service, at the port where it serves /metrics; the engine's have their secrets."""
    jobs: dict[str, Any] = {
        job["job_name"]: job
        for job in yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    }
    asked = {
        (name, target["port"], job["metrics_path"])
        for job in jobs.values()
        for target in job.get("dns_sd_configs", [])
        for name in target["names"]
    }
    api, worker = service("api")["environment"], service("worker")["environment"]
    assert asked == {
        ("api", int(api["FLEETWATT_HTTP_PORT"]), "/metrics"),
        ("worker", int(worker["FLEETWATT_WORKER_METRICS_PORT"]), "/metrics"),
    }
    assert jobs["fleetwatt-api"]["authorization"]["credentials_file"] == "/run/secrets/read_key"


def test_the_dockerfile_copies_what_is_there() -> None:
    """Each path that it copies exists and is let through, and nothing else is sent to the builder."""
    copied = {
        source
        for word, rest in dockerfile()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored


def test_the_dockerfile_is_pinned() -> None:
    """One base, with an exact version, for both stages; what builds is pinned too."""
    words = DOCKERFILE.read_text()
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-[a-z]+$", words, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", words, re.MULTILINE) == ["python:${PYTHON}"] * 2
    assert re.search(r"pip install --no-cache-dir uv==\d+\.\d+\.\d+$", words, re.MULTILINE)


def test_the_brokers_configuration_follows_the_other() -> None:
    """The container's differs from deploy/mosquitto in paths, and in how it keeps what waits."""

    def lines(file: str, *renamed: tuple[str, str]) -> list[str]:
        text = (ROOT / file).read_text()
        for here, there in renamed:
            text = text.replace(here, there)
        kept = ("persistence ", "persistence_", "autosave", "plugin")
        return [line for line in text.splitlines() if line and not line.startswith(("#", *kept))]

    assert lines("deploy/mosquitto/mosquitto.conf") == lines(
        "deploy/compose/mosquitto.conf",
        ("/mosquitto/data/passwords", "/etc/mosquitto/passwords"),
        ("/mosquitto/data/acl", "/etc/mosquitto/acl"),
        ("/run/secrets/broker.", "/etc/mosquitto/certs/server."),
        ("/run/secrets/", "/etc/mosquitto/certs/"),
    )
