"""Grafana's files, read: dashboards that say what they show, sources and secrets that fit the others."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any, Final

import pytest
import yaml

from tests.deploy.files import ROOT, compose, service
from tests.support import grafana
from tests.support.grafana import BI, PROMETHEUS

# What @grafana/schema of the pinned version has.
SCHEMA: Final = 42
TYPES: Final = {"stat", "timeseries", "barchart", "table", "state-timeline"}
# What Grafana fills in itself.
BUILT_IN: Final = {"__interval_ms", "__rate_interval", "__url_time_range", "__value"}
# Panels whose values are words.
WORDS: Final = {"Circuit breaker", "Where it drew", "Alarms that fire"}


def provisioned(kind: str) -> dict[str, Any]:
    """Give what a file of the provisioning says."""
    said: dict[str, Any] = yaml.safe_load((grafana.FOLDER / f"provisioning/{kind}/fleetwatt.yml").read_text())
    return said


def variables(name: str) -> set[str]:
    """Name the variables of a dashboard."""
    return {variable["name"] for variable in grafana.dashboard(name)["templating"]["list"]}


def settings_of(panel: dict[str, Any], wanted: str) -> list[Any]:
    """Give what a panel says of a property of its fields, by default and for some."""
    config = panel["fieldConfig"]
    properties = [one for override in config["overrides"] for one in override["properties"]]
    found = [one["value"] for one in properties if one["id"] == wanted]
    return found + ([config["defaults"][wanted]] if wanted in config["defaults"] else [])


@pytest.mark.parametrize("name", grafana.names())
def test_a_dashboard(name: str) -> None:
    """It has an address of its own, and says what it is; its id is Grafana's to give."""
    said = grafana.dashboard(name)
    assert said["uid"] == f"fleetwatt-{name}"
    assert said["schemaVersion"] == SCHEMA
    assert "id" not in said
    assert all(said[member] for member in ("title", "description", "time", "refresh"))
    assert said["tags"] == ["fleetwatt"]
    # The way to the other dashboards, with the time range and what is chosen.
    [link] = said["links"]
    assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == (
        "dashboards",
        ["fleetwatt"],
        True,
        True,
    )


@pytest.mark.parametrize("name", grafana.names())
def test_panels(name: str) -> None:
    """Each says what it shows, in which unit, from a source that is provisioned; none lies on another."""
    every = grafana.dashboard(name)["panels"]
    assert sorted(panel["id"] for panel in every) == list(range(1, len(every) + 1))
    titles = [panel["title"] for panel in every]
    assert len(set(titles)) == len(titles)
    for panel in grafana.panels(name):
        assert panel["type"] in TYPES
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["title"] in WORDS or settings_of(panel, "unit") or settings_of(panel, "displayName")
        sources = [target["datasource"] for target in panel["targets"]]
        assert panel["datasource"] in (BI, PROMETHEUS)
        assert all(source == panel["datasource"] for source in sources), panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(sources) > 0
    places = [panel["gridPos"] for panel in every]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = any(
            a[axis] + a[size] <= b[axis]
            for a, b in ((one, other), (other, one))
            for axis, size in (("x", "w"), ("y", "h"))
        )
        assert apart, (one, other)


@pytest.mark.parametrize("name", grafana.names())
def test_efficiency_changes_its_colour_at_the_threshold(name: str) -> None:
    """Wherever DC / AC is shown in colours, 0.85 is where they change."""
    for panel in grafana.panels(name):
        for override in panel["fieldConfig"]["overrides"]:
            shown = {one["id"]: one["value"] for one in override["properties"]}
            if "thresholds" in shown and shown.get("unit") == "percentunit":
                assert [step["value"] for step in shown["thresholds"]["steps"]] == [None, 0.85]
        if panel["title"].startswith("Efficiency"):
            said = panel["fieldConfig"]["defaults"]
            assert said["unit"] in ("percentunit", "none")
    default = grafana.defaults(name).get("threshold")
    assert default in (None, "0.85")


@pytest.mark.parametrize("name", grafana.names())
def test_variables_exist(name: str) -> None:
    """Whatever a panel, a note or a link takes from a variable, the dashboard has; none is for nothing."""
    text = json.dumps({key: grafana.dashboard(name)[key] for key in ("panels", "annotations")})
    used = {one for pair in re.findall(r"\$(?:\{(\w+)|(\w+)\b(?!\())", text) for one in pair if one}
    assert used - BUILT_IN == variables(name)


def test_links_lead_to_dashboards() -> None:
    """Each names a dashboard and variables that are there, and carries the time range along; none leaves."""
    carried = 0
    uids = {grafana.dashboard(name)["uid"]: name for name in grafana.names()}
    for name in grafana.names():
        assert "://" not in json.dumps(grafana.dashboard(name))
        for panel in grafana.panels(name):
            for url in (link["url"] for links in settings_of(panel, "links") for link in links):
                uid, slug, query = re.fullmatch(r"/d/([\w-]+)/([\w-]+)\?(.+)", url).groups()  # type: ignore[union-attr]
                assert slug == uids[uid]
                given = set(re.findall(r"\bvar-(\w+)=", query)) | set(
                    re.findall(r"\{(\w+):queryparam", query)
                )
                assert given <= variables(uids[uid]), url
                assert "${__url_time_range}" in query
                carried += 1
    assert carried >= 6


def test_sources() -> None:
    """They are the ones that dashboards name; the role of BI tools, its password from a secret's file."""
    bi, prometheus = provisioned("datasources")["datasources"]
    assert [{"type": one["type"], "uid": one["uid"]} for one in (bi, prometheus)] == [BI, PROMETHEUS]
    assert bi["user"] == "fleetwatt_bi"
    assert bi["jsonData"]["database"] == service("database")["environment"]["POSTGRES_DB"]
    assert bi["secureJsonData"] == {"password": "$__file{/run/secrets/bi_password}"}
    assert bi["url"] == "database:5432"
    assert prometheus["url"] == "http://prometheus:9090"
    asked = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]
    assert prometheus["jsonData"]["timeInterval"] == asked["scrape_interval"]
    assert [one["isDefault"] for one in (bi, prometheus) if "isDefault" in one] == [True]
    assert not any(one["editable"] for one in (bi, prometheus))


def test_the_container_has_each_file() -> None:
    """Where Grafana looks for it: sources in the image's folder, dashboards in the provider's."""
    files = {
        config["target"]: compose()["configs"][config["source"]]["file"]
        for config in service("grafana")["configs"]
    }
    [provider] = provisioned("dashboards")["providers"]
    folder = provider["options"]["path"]
    wanted = {f"{folder}/{name}.json": f"deploy/grafana/dashboards/{name}.json" for name in grafana.names()}
    for kind in ("datasources", "dashboards"):
        file = f"provisioning/{kind}/fleetwatt.yml"
        wanted[f"/etc/grafana/{file}"] = f"deploy/grafana/{file}"
    assert files == wanted
    home = service("grafana")["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in files
    assert not provider["allowUiUpdates"]


def test_grafana_is_closed() -> None:
    """Nobody gets in without a login, nothing stands for its secrets, and it speaks to nobody outside."""
    said = service("grafana")["environment"]
    secret = {key: value for key, value in said.items() if "PASSWORD" in key or "SECRET" in key}
    assert set(secret) == {"GF_SECURITY_ADMIN_PASSWORD__FILE", "GF_SECURITY_SECRET_KEY__FILE"}
    assert all(PurePosixPath(file).parent == PurePosixPath("/run/secrets") for file in secret.values())
    off = (
        "AUTH_ANONYMOUS",
        "ANALYTICS_REPORTING",
        "ANALYTICS_FEEDBACK_LINKS",
        "NEWS_NEWS_FEED",
        "SNAPSHOTS_EXTERNAL",
    )
    assert {said[f"GF_{name}_ENABLED"] for name in off} == {"false"}
    assert said["GF_ANALYTICS_CHECK_FOR_UPDATES"] == said["GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES"] == "false"
    assert said["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    # What it writes: its database, and sockets of its plugins.
    assert service("grafana")["volumes"] == ["grafana:/var/lib/grafana"]
    assert service("grafana")["tmpfs"] == ["/tmp"]  # noqa: S108 - a path in the container
