"""What waits for a person: refused readings, alerts that nobody was told of, doors that are open."""

from __future__ import annotations

import contextlib

from service import dsn
from service.broker import BrokerAddress
from service.doctor.finding import Finding, Patient
from service.doctor.look import Look
from service.errors import SettingsError
from service.loopback import is_loopback
from service.sql import query


def letters(_patient: Patient, look: Look) -> list[Finding]:
    """Tell of dead letters that no replay has stored, and nobody dismissed."""
    row = look.one(query("doctor_letters"))
    if not row["waiting"]:
        return []
    return [
        Finding(
            "warning",
            "dead letters",
            f"{row['waiting']} dead letters wait, since {row['since']:%Y-%m-%d %H:%M} UTC",
            "what was refused is kept for a while only: mend the cause and replay it, or dismiss it",
            "fleetwatt dead-letters summary",
        )
    ]


def alerts(patient: Patient, look: Look) -> list[Finding]:
    """Tell of alert events that a channel which is set should have delivered."""
    row = look.one(query("doctor_alert_events"))
    found = []
    again = patient.psql(
        "update alert_event set webhook_state = 'pending', webhook_tries = 0, webhook_next_at = now() "
        "where webhook_state = 'failed'"
    )
    if patient.settings.mqtt_url and row["mqtt_waiting"]:
        found.append(
            Finding(
                "warning",
                "alerts",
                f"{row['mqtt_waiting']} alert events are not published over MQTT",
                "nobody hears of chargers that fail: the broker refuses them, or no process delivers",
                "fleetwatt worker    # its log says broker_away or broker_refused",
            )
        )
    if patient.settings.alert_webhook_url and row["webhook_waiting"]:
        found.append(
            Finding(
                "warning",
                "alerts",
                f"{row['webhook_waiting']} alert events are overdue at the webhook",
                "it does not answer, or no process delivers",
                "fleetwatt serve    # its log says webhook_failed",
            )
        )
    if row["webhook_failed"]:
        found.append(
            Finding(
                "warning",
                "alerts",
                f"{row['webhook_failed']} alert events were given up at the webhook",
                "nobody was told of them; once it works they can be tried anew",
                again,
            )
        )
    return found


def keys(patient: Patient, look: Look) -> list[Finding]:
    """Tell of a service that is reached from elsewhere and has no key that works."""
    host = patient.settings.http_host
    if is_loopback(host) or look.one(query("count_working_api_keys"))["working"]:
        return []
    return [
        Finding(
            "error",
            "keys",
            f"FLEETWATT_HTTP_HOST={host} is open to others, and no key works",
            "`fleetwatt serve` does not start like this, and refuses every request where it runs",
            "fleetwatt key create --name NAME --scope ingest",
        )
    ]


def ways(patient: Patient) -> list[Finding]:
    """Tell of passwords and readings that travel where others can read them."""
    settings, found = patient.settings, []
    url = settings.database_url or settings.migrate_database_url
    host = None
    # Addresses that cannot be read are told by the looks at what is behind them.
    with contextlib.suppress(SettingsError):
        host = dsn.unprotected(url) if url else None
    if host is not None:
        found.append(
            Finding(
                "warning",
                "encryption",
                f"the way to the database at {host} may be unencrypted",
                "who can read or turn the traffic gets the password and the readings",
                "add ?sslmode=verify-full&sslrootcert=... to FLEETWATT_DATABASE_URL",
            )
        )
    with contextlib.suppress(SettingsError):
        broker = BrokerAddress.of(settings) if settings.mqtt_url else None
        if broker is not None and not broker.tls and not is_loopback(broker.host):
            found.append(
                Finding(
                    "warning",
                    "encryption",
                    f"the way to the broker at {broker} is unencrypted",
                    "who can read or turn the traffic gets the password and the readings",
                    "make FLEETWATT_MQTT_URL mqtts://, see deploy/mosquitto/README.md",
                )
            )
    if not is_loopback(settings.http_host) and not settings.http_tls_cert_file:
        found.append(
            Finding(
                "warning",
                "encryption",
                f"the HTTP service at {settings.http_host} is not HTTPS",
                "keys travel in clear, unless a proxy in front of it speaks TLS",
                "set FLEETWATT_HTTP_TLS_CERT_FILE and FLEETWATT_HTTP_TLS_KEY_FILE",
            )
        )
    return found
