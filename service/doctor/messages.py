"""What the broker and its configuration mean for messages that must not be lost."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gmqtt.mqtt.handler import MQTTConnectError

from service.broker import words
from service.doctor import broker, mosquitto, versions
from service.doctor.broker import Seen
from service.doctor.finding import Finding, Patient
from service.doctor.look import Look
from service.settings import Settings
from service.sql import query

# A worker that stored something this long ago, while another one goes on, is away.
_SILENT_S: Final = 900.0


def broker_itself(patient: Patient) -> tuple[list[Finding], Seen | None]:
    """Look at the broker and its configuration; give what it told too, None if it could not be asked."""
    settings = patient.settings
    if not settings.mqtt_url:
        note = Finding(
            "note", "broker", "no broker is set", "FLEETWATT_MQTT_URL is empty: readings come over HTTP only"
        )
        return [note], None
    options, found = _configuration(patient)
    try:
        seen = asyncio.run(broker.see(settings))
    except MQTTConnectError as error:
        return [
            *found,
            _away(f"refuses us: {error}", "check FLEETWATT_MQTT_USER and FLEETWATT_MQTT_PASSWORD"),
        ], None
    except (OSError, TimeoutError) as error:
        return [*found, _away(f"does not answer: {words(error)}", "systemctl start mosquitto")], None
    found += judge(seen, settings)
    found += versions.of_mosquitto(seen.told.get("$SYS/broker/version", ""), settings.mqtt_share, options)
    return found, seen


def _away(what: str, command: str) -> Finding:
    why = "no worker gets messages, and devices have to keep them"
    return Finding("error", "broker", f"the broker {what}", why, command)


def _configuration(patient: Patient) -> tuple[dict[str, str], list[Finding]]:
    file = patient.broker_config
    if file is None:
        return {}, []
    try:
        options = mosquitto.read(file)
        return options, mosquitto.judge(file, options, patient.settings)
    except (OSError, ValueError) as error:
        unread = Finding(
            "warning", "broker configuration", f"cannot read {file}: {error}", "it was not looked at"
        )
        return {}, [unread]


def judge(seen: Seen, settings: Settings) -> list[Finding]:
    """Judge what a broker grants and tells."""
    found = []

    def tell(severity: str, what: str, why: str, command: str = "") -> None:
        found.append(Finding("error" if severity == "error" else "warning", "broker", what, why, command))

    if seen.session_was_there:
        tell(
            "warning",
            "the broker chooses client ids by user name",
            "workers that log in as one user take each other's session; this look has just "
            "disconnected one, which "
            "comes back within a minute and loses nothing",
            "remove use_username_as_clientid from the listener of the workers",
        )
        return found
    granted: dict[str, Any] = seen.granted
    if granted.get("max_qos", 2) < 1:
        tell(
            "error", "the broker grants QoS 0 only", "messages are sent at most once, and lost without a word"
        )
    if not granted.get("retain_available", 1):
        tell("error", "the broker keeps no retained messages", "alerts are published as such, and refused")
    if not granted.get("wildcard_subscription_available", 1):
        tell("error", "the broker takes no wildcards", "workers subscribe to telemetry/+/+")
    if settings.mqtt_share and not granted.get("shared_subscription_available", 1):
        tell(
            "error",
            "the broker has no shared subscriptions, and FLEETWATT_MQTT_SHARE is set",
            "workers cannot subscribe",
            "export FLEETWATT_MQTT_SHARE=    # with one worker",
        )
    expiry_s = granted.get("session_expiry_interval", settings.mqtt_session_expiry_s)
    if expiry_s < settings.mqtt_session_expiry_s:
        tell(
            "warning",
            f"the broker keeps sessions for {expiry_s} s of the {settings.mqtt_session_expiry_s} s "
            "that we ask for",
            "what waits for a worker that is away for longer is lost",
            f"export FLEETWATT_MQTT_SESSION_EXPIRY_S={expiry_s}    # or let the broker allow more",
        )
    dropped = seen.told.get("$SYS/broker/publish/messages/dropped", "0")
    if dropped.isdecimal() and int(dropped):
        tell(
            "warning",
            f"the broker has dropped {dropped} messages since it started",
            "a queue was full: readings are lost unless their devices send again",
            "raise max_queued_messages and max_queued_bytes, or start more workers (docs/operations.md)",
        )
    return found


def workers(patient: Patient, look: Look, seen: Seen | None) -> list[Finding]:
    """Tell of workers that have gone: all of them, or one to whom the broker may still deal messages."""
    found = []
    if patient.settings.mqtt_url and not look.one(query("doctor_workers_now"))["workers"]:
        found.append(
            Finding(
                "error",
                "sessions",
                "no worker is connected to the database",
                "what comes over MQTT waits at the broker while that keeps a session, and is lost else",
                "fleetwatt status    # and the worker's log" if patient.running else "fleetwatt worker",
            )
        )
    rows = look.rows(query("doctor_workers"), expiry_s=patient.settings.mqtt_session_expiry_s)
    if not any(row["silent_s"] < _SILENT_S for row in rows):
        return found
    told = seen.told.get("$SYS/broker/clients/disconnected") if seen else None
    if told == "0":
        return found
    return found + [
        Finding(
            "warning",
            "sessions",
            f"the worker {row['client_id']} has stored nothing for {row['silent_s'] / 3600:.1f} h, "
            "others have",
            "its session at the broker may hold messages, and be dealt more, until it expires",
            f"FLEETWATT_MQTT_CLIENT_ID={row['client_id']} fleetwatt worker --leave    "
            "# unless it comes back, or has left so",
        )
        for row in rows
        if row["silent_s"] >= _SILENT_S
    ]
