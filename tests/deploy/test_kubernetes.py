"""The manifests for Kubernetes: the published schemas, names that meet, and how little each pod may do."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.settings import PREFIX, load
from tests.deploy.files import ROOT, command, service
from tests.docs.pages import blocks

FOLDER: Final = ROOT / "deploy/kubernetes"
# The oldest and the newest release that a cluster of today may run.
RELEASES: Final = ("1.31", kubernetes_validate.latest_version())
# Optional: it needs what a cluster may not have.
APART: Final = "autoscale.yaml"


@cache
def manifests() -> dict[str, dict[str, Any]]:
    """Give all that the files declare, by kind/name."""
    files = [file for file in FOLDER.glob("*.yaml") if file.name != "kustomization.yaml"]
    every = [one for file in sorted(files) for one in yaml.safe_load_all(file.read_text())]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in every}


WORKLOADS: Final = {
    "migrate": f"Job/migrate-{__version__}",
    "api": "Deployment/api",
    "worker": "StatefulSet/worker",
}


def pod(name: str) -> dict[str, Any]:
    """Give a workload's pod."""
    template: dict[str, Any] = manifests()[WORKLOADS[name]]["spec"]["template"]
    return template


def container(name: str) -> dict[str, Any]:
    """Give a workload's one container."""
    [one] = pod(name)["spec"]["containers"]
    found: dict[str, Any] = one
    return found


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", list(manifests()))
def test_the_published_schemas(name: str, release: str) -> None:
    """Each is what that release of Kubernetes takes, without a field that it does not know."""
    kubernetes_validate.validate(manifests()[name], release, strict=True)


def test_the_list_of_files() -> None:
    """Every file but the optional one is applied, with the image of this version."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    files = {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml", APART}
    assert set(kustomization["resources"]) == files
    assert [image["newTag"] for image in kustomization["images"]] == [__version__]
    assert kustomization["namespace"] == manifests()["Namespace/fleetwatt"]["metadata"]["name"]
    assert {container(name)["image"] for name in WORKLOADS} == {kustomization["images"][0]["name"]}


@pytest.mark.parametrize("name", WORKLOADS)
def test_as_little_as_it_takes(name: str) -> None:
    """What the restricted profile of pod security asks for, and nothing written but to memory."""
    spec, one = pod(name)["spec"], container(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in one["resources"]["limits"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_settings_and_secrets(name: str, tmp_path: Path) -> None:
    """Each variable is a setting; each secret is mounted where it is looked for, and made by the page."""
    one = container(name)
    common = manifests()["ConfigMap/fleetwatt"]["data"]
    given = {variable["name"]: variable.get("value", "worker-0") for variable in one["env"]} | common
    assert all(variable.startswith(PREFIX) for variable in given)
    page = (ROOT / "docs/scaling.md").read_text().replace("\\\n", " ")
    volumes = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in pod(name)["spec"]["volumes"]
        if "secret" in volume
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"]}
    texts = " ".join([*map(str, given.values()), *one.get("args", [])])
    wanted = re.findall(r"(/run/secrets/\w+)/([\w.-]+)", texts)
    assert {mounts[folder] for folder, _ in wanted} == set(volumes)
    for folder, file in wanted:
        [line] = re.findall(rf"create secret generic {volumes[mounts[folder]]} (.*)", page)
        assert f"={file}" in line or f"/{file}" in line, file
        (tmp_path / Path(folder).name).mkdir(exist_ok=True)
        (tmp_path / Path(folder).name / file).write_text("mqtt://host\n")
    load({key: value.replace("/run/secrets", str(tmp_path)) for key, value in given.items()})


def test_the_page_makes_the_secrets(tmp_path: Path) -> None:
    """Addresses stay as they were written; the broker's certificate is for the name that workers use."""
    [page] = [block.text for block in blocks("docs/scaling.md", "sh") if "make-secrets.sh" in block.text]
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    ours = [line for line in page.splitlines() if line.startswith(("(umask", "echo ", "deploy/"))]
    subprocess.run(["sh", "-ec", "\n".join(ours)], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    for role in ("owner", "service"):
        address = (tmp_path / f"secrets/{role}_database_url").read_text()
        assert f"fleetwatt_{role}:...@db.example" in address
    for name in re.findall(r"--from-file=(\S+)", page):
        assert (tmp_path / name).exists(), name
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(tmp_path / "secrets/broker.crt")],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    given = {one["name"]: one.get("value", "") for one in container("worker")["env"]}
    host = urlsplit(given["FLEETWATT_MQTT_URL"]).hostname
    assert {f"DNS:{host}", "DNS:broker.example"} <= set(re.split(r"[\s,]+", shown))


def test_the_commands_are_those_of_the_compose_file() -> None:
    """So what the tests of the compose file run is what runs here."""

    def plain(words: list[str]) -> list[str]:
        return [re.sub(r"/run/secrets/(?:\w+/)?(\w+)", r"\1", word).strip() for word in words]

    migrate = container("migrate")
    assert plain([*migrate["command"], *migrate["args"]]) == plain(command("migrate"))
    assert container("api")["args"] == service("api")["command"] == ["serve"]
    assert container("worker")["args"] == ["worker"]
    for name in ("api", "worker"):
        assert "command" not in container(name)


def test_selectors_find_their_pods() -> None:
    """Services, budgets, rules and the scaler name pods and ports that exist."""
    labels = {name: pod(name)["metadata"]["labels"] for name in WORKLOADS}
    ports = {port["name"] for name in ("api", "worker") for port in container(name)["ports"]}
    for name, one in manifests().items():
        spec = one.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector", {}))
        wanted = selector.get("matchLabels", selector if "matchLabels" not in selector else {})
        assert any(wanted.items() <= given.items() for given in labels.values()), name
        assert {port["targetPort"] for port in spec.get("ports", [])} <= ports
    scaled = manifests()["HorizontalPodAutoscaler/worker"]["spec"]["scaleTargetRef"]
    assert f"{scaled['kind']}/{scaled['name']}" in manifests()


def test_probes_ask_what_answers() -> None:
    """The API is asked for its probes, a worker for its metrics, at the ports of their settings."""
    for name, variable in (("api", "HTTP_PORT"), ("worker", "WORKER_METRICS_PORT")):
        one = container(name)
        [port] = one["ports"]
        given = {each["name"]: each.get("value") for each in one["env"]}
        assert given[PREFIX + variable] == str(port["containerPort"])
        probes = [
            one[probe]["httpGet"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
            if probe in one
        ]
        assert {probe["port"] for probe in probes} == {port["name"]}
        assert {probe["path"] for probe in probes} <= {"/health/live", "/health/ready", "/metrics"}
    # A worker's session is kept under its pod's name.
    ids = [each for each in container("worker")["env"] if each["name"] == "FLEETWATT_MQTT_CLIENT_ID"]
    assert ids[0]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
