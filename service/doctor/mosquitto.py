"""Mosquitto's configuration, as far as it decides whether messages are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service.doctor.finding import Finding
from service.settings import Settings

_UNITS: Final = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "m": 30 * 86_400, "y": 365 * 86_400}
# An hour of 333 readings a second, one a message.
_LEAST_QUEUED: Final = 1_200_000
_LEAST_IN_FLIGHT: Final = 100
_MOST_AUTOSAVE_S: Final = 60


def read(file: Path) -> dict[str, str]:
    """Give the last value of each option, files of include_dir included; OSError for what cannot be read."""
    options: dict[str, str] = {}
    for line in file.read_text(errors="replace").splitlines():
        name, _, value = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        options[name] = value.strip()
        if name == "include_dir":
            for part in sorted(Path(value.strip()).glob("*.conf")):
                options |= read(part)
    return options


def judge(file: Path, options: dict[str, str], settings: Settings) -> list[Finding]:
    """Tell which options, or their defaults, lose messages."""
    found = []

    def tell(severity: str, option: str, wanted: str, why: str) -> None:
        there = f"{option} {options[option]}" if option in options else f"no {option}"
        add = (
            f"sed -i 's/^{option} .*/{option} {wanted}/' {file}"
            if option in options
            else f"echo '{option} {wanted}' >> {file}"
        )
        found.append(
            Finding(
                "error" if severity == "error" else "warning",
                "broker configuration",
                f"{there} in {file.name}",
                why,
                f"{add}    # and restart it, never reload",
            )
        )

    # With that plugin the broker of version 2.1 keeps everything at once, and shared subscriptions, too.
    if "mosquitto_persist_sqlite" in options.get("plugin", ""):
        pass
    elif options.get("persistence") != "true":
        tell("error", "persistence", "true", "a restart of the broker loses all that waits for workers")
    elif int(options.get("autosave_interval", "1800")) > _MOST_AUTOSAVE_S:
        tell(
            "warning",
            "autosave_interval",
            "30",
            "a broker that is killed loses what it took since its last save",
        )
    queued = int(options.get("max_queued_messages", "1000"))
    if 0 < queued < _LEAST_QUEUED:
        tell(
            "error" if queued <= 1000 else "warning",
            "max_queued_messages",
            "5000000",
            f"past {queued:,} messages that wait for a worker it drops the rest without a word",
        )
    if 0 < int(options.get("max_inflight_messages", "20")) < _LEAST_IN_FLIGHT:
        tell("warning", "max_inflight_messages", "2000", "so few at a time are the limit of a worker's speed")
    if options.get("per_listener_settings") == "true":
        tell("error", "per_listener_settings", "false", "what comes for a worker that is away is dropped")
    expiry = options.get("persistent_client_expiration", "")
    if expiry and _seconds(expiry) < settings.mqtt_session_expiry_s:
        tell(
            "warning",
            "persistent_client_expiration",
            f"{-(-settings.mqtt_session_expiry_s // 86_400)}d",
            "a worker's session, with all that waits in it, goes before FLEETWATT_MQTT_SESSION_EXPIRY_S",
        )
    if options.get("retain_available") == "false":
        tell(
            "error", "retain_available", "true", "alerts are published as retained messages, and are refused"
        )
    return found


def _seconds(text: str) -> int:
    """Read a duration such as 14d or 2m (months)."""
    return int(text[:-1] or 0) * _UNITS.get(text[-1], 0) if text[:-1].isdecimal() else 0
