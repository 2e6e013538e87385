"""Settings: each is explained and has a default, mistakes are named, passwords stay hidden."""

from __future__ import annotations

import msgspec
import pytest

from service import settings as settings_module
from service.errors import SettingsError
from service.settings import PREFIX, Settings, describe, hide_password, load


def test_every_setting_has_a_default_and_help() -> None:
    """Without any variable all settings have a value, and `describe` explains each in one line."""
    assert load({}) == Settings()
    rows = describe(Settings())
    assert [variable for variable, *_ in rows] == [
        PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)
    ]
    for variable, value, default, help_line in rows:
        assert value == default, variable
        assert len(help_line) > 10, variable
        assert "\n" not in help_line, variable


def test_defaults_are_within_their_own_rules() -> None:
    """Each default would also be accepted from the environment."""
    written = {variable: value for variable, value, *_ in describe(Settings())}
    assert load(written) == Settings()


def test_values_are_read() -> None:
    """Numbers and texts are read from the variables; variables of others are none of our business."""
    environment = {"FLEETWATT_HTTP_PORT": "9000", "FLEETWATT_RETRY_MAX_S": "0.5", "FLEETWATT_MQTT_SHARE": "a",
                   "HOME": "/", "fleetwatt_http_port": "1", "FLEETWATT_TEST_PG_BIN": "/x"}  # fmt: skip
    settings = load(environment)
    assert (settings.http_port, settings.retry_max_s, settings.mqtt_share) == (9000, 0.5, "a")


@pytest.mark.parametrize("name", ["FLEETWATT_HTTP_PROT", "FLEETWATT_", "FLEETWATT_http_port"])
def test_unknown_name(name: str) -> None:
    """A name that no setting has is refused, not ignored: it is most often a typing error."""
    with pytest.raises(SettingsError, match=name):
        load({name: "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", "0"),
        ("HTTP_PORT", "65536"),
        ("HTTP_PORT", "http"),
        ("HTTP_PORT", ""),
        ("HTTP_PORT", "80.5"),
        ("WRITERS", "0"),
        ("WRITERS", "33"),
        ("RETRY_MAX_S", "0"),
        ("RETRY_MAX_S", "nan"),
        ("RETRY_MAX_S", "inf"),
        ("CLOCK_AHEAD_S", "-1"),
        ("CLOCK_AHEAD_S", "inf"),
        ("RAW_RETENTION_DAYS", "-1"),
        ("EFFICIENCY_THRESHOLD", "1.01"),
        ("EFFICIENCY_THRESHOLD", "0"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "JSON"),
        ("BATCH_MAX_READINGS", "-5"),
    ],
)
def test_bad_value_names_the_variable(name: str, value: str) -> None:
    """A value out of range or of the wrong type is refused, and the message begins with the variable."""
    with pytest.raises(SettingsError, match=f"^{PREFIX}{name}="):
        load({PREFIX + name: value})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@host:5432/fleetwatt",
        "postgresql://user:s3cret@host/fleetwatt?sslmode=require",
        "postgresql://user:a@s3cret@host/fleetwatt",
        "postgresql://:s3cret@host/fleetwatt",
        "postgresql://user@host/fleetwatt?password=s3cret",
        "postgresql:///fleetwatt?user=u&password=s3cret&host=h",
        "host=h user=u password=s3cret dbname=fleetwatt",
        "host=h password='s3cret word' dbname=fleetwatt",
        "mqtt://user:s3cret@broker",
        "mqtts://user:s3cret@broker:8883",
    ],
)
def test_passwords_are_hidden(url: str) -> None:
    """However a password can be written that the drivers understand, it is not shown."""
    assert "s3cret" not in hide_password(url)
    for name in ("database_url", "migrate_database_url", "mqtt_url"):
        shown = " ".join(
            " ".join(row) for row in describe(msgspec.structs.replace(Settings(), **{name: url}))
        )
        assert "s3cret" not in shown


@pytest.mark.parametrize("url", ["", "postgresql://user@host/db", "mqtt://broker:1883", "host=h dbname=d"])
def test_an_address_without_a_password_is_shown_as_it_is(url: str) -> None:
    """Nothing is hidden where there is nothing to hide."""
    assert hide_password(url) == url


def test_no_setting_escapes_the_hiding() -> None:
    """A setting whose name tells of a secret is one of those that are hidden."""
    names = [field.name for field in msgspec.structs.fields(Settings)]
    secrets = [name for name in names if any(word in name for word in ("password", "secret", "token", "key"))]
    assert secrets == []
    assert settings_module.PREFIX == "FLEETWATT_"
