"""Prometheus's files: what is asked for is told by real processes, and each alarm has its runbook."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests.deploy.files import ROOT, compose, service
from tests.support import grafana, servers
from tests.support.grafana import PROMETHEUS
from tests.support.mqtt import METER, publish, worker_process
from tests.support.scrape import scrape_until
from tests.support.serving import served
from tests.support.strategies import altered, encode, meter

RULES: Final = ROOT / "deploy/prometheus/alerts.yml"
RUNBOOKS: Final = ROOT / "docs/runbooks"
PAGE: Final = ROOT / "docs/metrics.md"
# What Prometheus adds to whatever it is told, and its own series.
ADDED: Final = {"job", "instance"}
OWN: Final = {"up": ADDED, "ALERTS": {"alertname", "alertstate", "severity"}}
# Prometheus has a label job of its own, and puts the one that it is told aside.
RENAMED: Final = {"job": "exported_job"}


class Expression(NamedTuple):
    """What is asked of Prometheus, and where."""

    place: str
    text: str
    legend: str = ""


def rules() -> list[dict[str, Any]]:
    """Give the alarms."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[Expression]:
    """Give all that rules, dashboards and runbooks ask for."""
    found = [Expression(rule["alert"], rule["expr"]) for rule in rules()]
    for name in grafana.names():
        for panel in grafana.panels(name):
            found.extend(
                Expression(f"{name}: {panel['title']}", target["expr"], target.get("legendFormat", ""))
                for target in panel["targets"]
                if target["datasource"] == PROMETHEUS
            )
    for page in sorted(RUNBOOKS.glob("*.md")):
        for block in re.findall(r"^```promql\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            found.extend(Expression(page.name, line) for line in block.splitlines())
    return found


def told(*answers: str) -> dict[str, set[str]]:
    """Give each metric in answers of /metrics with its labels."""
    # One without samples yet tells no labels: the page has them.
    documented = dict(re.findall(r"^\| `(fleetwatt_\w+)\{([^}]*)\}", PAGE.read_text(), re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for family in (one for answer in answers for one in text_string_to_metric_families(answer)):
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names = {sample.name: set(sample.labels) for sample in family.samples}
        for name in names or [family.name + ending for ending in endings]:
            said = re.findall(r"\w+", documented.get(re.sub("_(bucket|sum|count)$", "", name), ""))
            found = {RENAMED.get(label, label) for label in {*said, *names.get(name, ())}}
            labels.setdefault(name, set()).update(ADDED, found)
        for sample in family.samples:
            labels[sample.name].update(RENAMED.get(label, label) for label in sample.labels)
    return labels


@pytest.fixture
async def metrics(
    mqtt_settings: Settings, broker_port: int, ready: socket.socket, tmp_path: Path
) -> dict[str, set[str]]:
    """Give what an API and a worker tell after some traffic."""
    port = servers.free_port()
    async with (
        served(mqtt_settings, tmp_path) as api,
        worker_process(msgspec.structs.replace(mqtt_settings, worker_metrics_port=port), ready),
    ):
        await api.client.post(
            "/v1/telemetry", content=encode(meter("m-1"), altered(meter("m-2"), voltage=-1))
        )
        await publish(broker_port, METER + "m-1", encode(meter("m-1", 1)))
        worker = f"http://127.0.0.1:{port}"
        await scrape_until(worker, lambda now: now["fleetwatt_mqtt_messages_total"] > 0)
        async with httpx.AsyncClient(trust_env=False) as client:
            answers = [(await api.client.get("/metrics")).text, (await client.get(f"{worker}/metrics")).text]
    return told(*answers)


@pytest.mark.anyio
@pytest.mark.either_edition
async def test_what_is_asked_for_is_told(metrics: dict[str, set[str]]) -> None:
    """Each metric of a rule, a panel or a runbook is there, with each label that is chosen or summed by."""
    known = metrics | OWN
    for one in expressions():
        text = re.sub(r'"[^"]*"', '""', one.text)
        names = set(re.findall(r"\b(?:fleetwatt_\w+|process_\w+|up|ALERTS)\b", text))
        assert names, one
        assert names <= known.keys(), one
        for name, chosen in re.findall(r"\b([a-zA-Z_]\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen)) <= known[name], one
        kept = [set(re.findall(r"\w+", labels)) for labels in re.findall(r"\bby \(([^)]*)\)", text)]
        shown = set(re.findall(r"\{\{(\w+)\}\}", one.legend))
        for labels in [*kept, shown]:
            assert labels <= set.union(*(known[name] for name in names)), one
        # What a sum has left out cannot be shown.
        assert not kept or shown <= kept[0] | ADDED, one


def test_values_that_are_chosen_are_documented() -> None:
    """A rule that waits for a value which never comes is no rule: the page has each with its metric."""
    page = PAGE.read_text()
    for one in expressions():
        for name, chosen in re.findall(r"\b(fleetwatt_\w+)\{([^}]*)\}", one.text):
            [row] = re.findall(rf"^\| `{re.sub('_(bucket|sum|count)$', '', name)}.*$", page, re.MULTILINE)
            for values in re.findall(r'"([^"]*)"', chosen):
                for value in values.split("|"):
                    assert value in row or value == "POST", (one, value)


def test_each_alarm_says_what_it_is() -> None:
    """A name of its own, how bad it is, what is wrong in words, where to read on."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 20
    for rule in rules():
        assert re.fullmatch(r"([A-Z][a-z]+)+", rule["alert"])
        assert rule["labels"]["severity"] in ("critical", "warning")
        said = rule["annotations"]
        assert set(said) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert said["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        # A label that the expression has summed away would be an empty word.
        kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(said.values())))
        assert named <= set(re.findall(r"\w+", kept[0]) if kept else ADDED), rule["alert"]


def test_each_alarm_has_a_runbook_and_the_other_way_round() -> None:
    """It tells what the alarm means, how to see it, what to do; and names the alarm's own condition."""
    assert {file.stem for file in RUNBOOKS.glob("*.md")} - {"README"} == {rule["alert"] for rule in rules()}
    overview = (RUNBOOKS / "README.md").read_text()
    for rule in rules():
        text = (RUNBOOKS / f"{rule['alert']}.md").read_text()
        assert text.startswith(f"# {rule['alert']}\n"), rule["alert"]
        titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert titles == ["What it means", "How to see it", "What to do"], rule["alert"]
        metrics = set(re.findall(r"fleetwatt_\w+", rule["expr"])) or {"up"}
        assert any(re.sub("_(bucket|sum|count)$", "", name) in text for name in metrics), rule["alert"]
        assert f"]({rule['alert']}.md)" in overview
        line = next(line for line in overview.splitlines() if f"]({rule['alert']}.md)" in line)
        assert f"| {rule['labels']['severity']} |" in line


def test_prometheus_loads_the_rules() -> None:
    """The file lies where the configuration looks for it."""
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    mounted = {
        config["target"]: compose()["configs"][config["source"]]["file"]
        for config in service("prometheus")["configs"]
    }
    [file] = configuration["rule_files"]
    assert mounted[file] == str(RULES.relative_to(ROOT))
    jobs = {job["job_name"] for job in configuration["scrape_configs"]}
    chosen = {job for one in expressions() for job in re.findall(r'job="([\w-]+)"', one.text)}
    assert chosen <= jobs
