"""Alarms, tried by Prometheus's own tool: each fires when it must, and none does while all is well."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.files import ROOT
from tests.deploy.test_prometheus_rules import RULES, expressions, rules

PROMTOOL: Final = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool on PATH; Debian has it in the package prometheus"
)
# Three hours, a sample a minute; rules are asked every five, alarms looked at after two and a half hours.
MINUTES, LOOK = 180, "150m"
API, WORKER = 'job="fleetwatt-api",instance="api:8080"', 'job="fleetwatt-worker",instance="worker:9100"'
LAG: Final = "fleetwatt_ingest_lag_seconds_bucket{kind="
SECONDS: Final = 'fleetwatt_http_request_seconds_bucket{method="POST",route="/v1/telemetry",status="2xx",le='
STORED: Final = 'fleetwatt_readings_total{kind="meter",result="stored"}'
CONFLICTS: Final = 'fleetwatt_readings_total{kind="meter",result="conflict"}'


def steady(step: float) -> str:
    """Give the samples of a counter that rises by so much a minute."""
    return f"0+{step}x{MINUTES}"


def level(value: float) -> str:
    """Give the samples of a gauge that stays as it is."""
    return f"{value}x{MINUTES}"


# All is well: ten thousand devices, one refused reading in a hundred.
WELL: Final = {
    f"up{{{API}}}": level(1),
    f"up{{{WORKER}}}": level(1),
    f'fleetwatt_build_info{{{API},version="0.1.0"}}': level(1),
    f'fleetwatt_build_info{{{WORKER},version="0.1.0"}}': level(1),
    STORED: steady(600),
    CONFLICTS: steady(1),
    'fleetwatt_received_readings_total{source="mqtt"}': steady(600),
    'fleetwatt_rejected_readings_total{source="mqtt",code="out_of_range"}': steady(6),
    'fleetwatt_given_back_readings_total{reason="atomic_refused"}': steady(1),
    LAG + '"meter",le="60"}': steady(600),
    LAG + '"meter",le="300"}': steady(600),
    LAG + '"meter",le="+Inf"}': steady(600),
    f"fleetwatt_buffer_readings{{{WORKER}}}": level(100),
    f"fleetwatt_buffer_max_readings{{{WORKER}}}": level(50000),
    f"fleetwatt_buffer_bytes{{{WORKER}}}": level(1000),
    f"fleetwatt_buffer_max_bytes{{{WORKER}}}": level(64000000),
    "fleetwatt_dead_letters_waiting": level(12),
    "fleetwatt_dead_letter_disk_bytes": level(1e9),
    f"fleetwatt_breaker_state{{{WORKER}}}": level(0),
    'fleetwatt_transient_errors_total{sqlstate_class="40"}': steady(1),
    'fleetwatt_rollup_refreshed_at_seconds{stream="meter"}': "0+60x180",
    'fleetwatt_rollup_failures{stream="meter"}': level(3),
    'fleetwatt_rollup_stale_hours{stream="meter"}': "0 2 " * 90,
    'fleetwatt_job_failures{exported_job="drop_expired"}': level(1),
    f'fleetwatt_replica_state{{{API},state="ok"}}': level(1),
    f"fleetwatt_mqtt_connected{{{WORKER}}}": level(1),
    f"fleetwatt_mqtt_connections_total{{{WORKER}}}": level(2),
    f"fleetwatt_mqtt_unacknowledged_messages{{{WORKER}}}": level(50),
    f"fleetwatt_mqtt_receive_maximum{{{WORKER}}}": level(1000),
    'fleetwatt_http_request_seconds_count{status="2xx"}': steady(600),
    'fleetwatt_http_request_seconds_count{status="5xx"}': steady(1),
    SECONDS + '"0.5"}': steady(600),
    SECONDS + '"2.5"}': steady(600),
    SECONDS + '"+Inf"}': steady(600),
    'fleetwatt_refused_requests_total{code="bad_key"}': steady(1),
    'fleetwatt_alert_deliveries_total{channel="webhook",result="delivered"}': steady(1),
    'fleetwatt_alert_events{channel="webhook",state="pending"}': "0 3 " * 90,
}
# What is otherwise then, one trouble at a time; None: not told at all.
TROUBLES: Final[dict[str, list[dict[str, str | None]]]] = {
    "ApiAway": [{f"up{{{API}}}": level(0)}, {f"up{{{API}}}": None}],
    "WorkerAway": [{f"up{{{WORKER}}}": level(0)}, {f"up{{{WORKER}}}": None}],
    "VersionsDiffer": [{f'fleetwatt_build_info{{{WORKER},version="0.2.0"}}': level(1)}],
    "NothingStored": [
        {STORED: f"0+600x100 60000x{MINUTES}", CONFLICTS: None},
        # The process that counted them is gone, and with it the counter.
        {STORED: f"0+600x100 stale _x{MINUTES}", CONFLICTS: None},
    ],
    "ReadingsComeLate": [{LAG + '"meter",le="60"}': steady(500)}],
    "ReadingsRefused": [{'fleetwatt_rejected_readings_total{source="mqtt",code="out_of_range"}': steady(40)}],
    "ReadingsConflict": [{CONFLICTS: steady(10)}],
    "ReadingsGivenBack": [
        # The first one ever, which the counter begins with; and one more.
        {'fleetwatt_given_back_readings_total{reason="failed"}': f"_x139 1x{MINUTES}"},
        {'fleetwatt_given_back_readings_total{reason="failed"}': f"1x140 2x{MINUTES}"},
        {'fleetwatt_given_back_readings_total{reason="gave_up"}': steady(1)},
    ],
    "BufferFillsUp": [
        {f"fleetwatt_buffer_readings{{{WORKER}}}": level(30000)},
        {f"fleetwatt_buffer_bytes{{{WORKER}}}": level(40000000)},
    ],
    "DeadLettersGrow": [{"fleetwatt_dead_letters_waiting": steady(5)}],
    "DeadLettersTakeRoom": [{"fleetwatt_dead_letter_disk_bytes": level(3e9)}],
    "DatabaseAway": [{f"fleetwatt_breaker_state{{{WORKER}}}": f"0x140 2x{MINUTES}"}],
    "DatabaseOutOfRoom": [{'fleetwatt_transient_errors_total{sqlstate_class="53"}': steady(1)}],
    "MigrationMissing": [{'fleetwatt_transient_errors_total{sqlstate_class="42"}': steady(1)}],
    "RollupsStand": [{'fleetwatt_rollup_refreshed_at_seconds{stream="meter"}': f"0+60x120 7200x{MINUTES}"}],
    "RollupsFail": [{'fleetwatt_rollup_failures{stream="meter"}': f"3x145 4x{MINUTES}"}],
    "LateHoursWait": [{'fleetwatt_rollup_stale_hours{stream="meter"}': f"1+1x{MINUTES}"}],
    "JobFails": [{'fleetwatt_job_failures{exported_job="drop_expired"}': f"1x100 2x{MINUTES}"}],
    "ReplicaAway": [{f'fleetwatt_replica_state{{{API},state="ok"}}': f"1x140 0x{MINUTES}"}],
    "WorkerWithoutBroker": [{f"fleetwatt_mqtt_connected{{{WORKER}}}": f"1x140 0x{MINUTES}"}],
    "WorkerReconnects": [{f"fleetwatt_mqtt_connections_total{{{WORKER}}}": steady(1)}],
    "MessagesWait": [{f"fleetwatt_mqtt_unacknowledged_messages{{{WORKER}}}": level(1000)}],
    "RequestsFail": [{'fleetwatt_http_request_seconds_count{status="none"}': steady(20)}],
    "RequestsSlow": [{SECONDS + '"0.5"}': steady(500)}],
    "KeysGuessed": [{'fleetwatt_refused_requests_total{code="bad_key"}': steady(60)}],
    "AlertsUndelivered": [
        {'fleetwatt_alert_deliveries_total{channel="webhook",result="given_up"}': f"_x99 1x{MINUTES}"},
        {'fleetwatt_alert_deliveries_total{channel="webhook",result="given_up"}': f"1x100 2x{MINUTES}"},
        {'fleetwatt_alert_events{channel="webhook",state="pending"}': level(3)},
    ],
}


def promtool(*words: str) -> None:
    """Run the tool to its end; it must find nothing wrong."""
    done = subprocess.run([str(PROMTOOL), *words], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


def case(changed: dict[str, str | None], firing: set[str]) -> dict[str, Any]:
    """Give a test for the tool: what is told, and which alarms must fire, no other."""
    series = {name: values for name, values in {**WELL, **changed}.items() if values}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values.strip()} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": LOOK,
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing],
            }
        ],
    }


def test_each_alarm_fires_and_no_other(tmp_path: Path) -> None:
    """While all is well none does; in a trouble its alarm does, alone."""
    assert set(TROUBLES) == {rule["alert"] for rule in rules()}
    tests = [case({}, set())]
    tests += [case(changed, {name}) for name, every in TROUBLES.items() for changed in every]
    file = tmp_path / "alarms.yml"
    said = {"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": tests}
    file.write_text(yaml.safe_dump(said))
    promtool("test", "rules", str(file))


def test_what_an_alarm_says(tmp_path: Path) -> None:
    """The words have the numbers and names of the trouble."""
    said = {
        "exp_labels": {"severity": "warning", "source": "mqtt"},
        "exp_annotations": {
            "summary": "Many readings over mqtt are refused",
            "description": "6.667% of what came over mqtt is refused for what it says; "
            "it is kept as dead letters.",
            "runbook_url": "docs/runbooks/ReadingsRefused.md",
        },
    }
    trouble = case(TROUBLES["ReadingsRefused"][0], {"ReadingsRefused"})
    trouble["alert_rule_test"] = [{"alertname": "ReadingsRefused", "eval_time": LOOK, "exp_alerts": [said]}]
    file = tmp_path / "words.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": [trouble]})
    )
    promtool("test", "rules", str(file))


def test_the_configuration(tmp_path: Path) -> None:
    """Prometheus takes it, the rules that it loads included."""
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    (tmp_path / "read_key").write_text("fw_key")
    file = tmp_path / "prometheus.yml"
    file.write_text(
        text.replace("/run/secrets", str(tmp_path)).replace("/etc/prometheus/alerts.yml", str(RULES))
    )
    promtool("check", "config", str(file))


def test_what_dashboards_ask(tmp_path: Path) -> None:
    """Each query of a panel or a runbook is one that Prometheus can read."""
    asked = [re.sub(r"\$__rate_interval", "1m", one.text) for one in expressions()]
    recorded = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(asked)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", str(file))
