"""Settings: each is explained and has a default, mistakes are named, passwords stay hidden."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from service.errors import SettingsError
from service.secret import hide_password
from service.settings import PREFIX, Settings, describe, load


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


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HTTP_HOSTS", "*", "write host names without a port or a wildcard: fleet.example"),
        ("HTTP_CORS_ORIGINS", "*", "write origins in full, without a wildcard: https://"),
        ("HTTP_AUTH", "none", "write auto or keys"),
        ("LOG_LEVEL", "trace", "write debug, info, warning or error"),
        ("LOG_FORMAT", "xml", "write auto, json or text"),
    ],
)
def test_a_form_is_told_in_words(name: str, value: str, words: str) -> None:
    """Where a value must have a form the error says how to write it; nobody has to read a pattern."""
    with pytest.raises(SettingsError) as caught:
        load({PREFIX + name: value})
    assert words in str(caught.value)
    assert "regex" not in str(caught.value)


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
        "postgresql://user:a/s3cret@host/fleetwatt",
        "postgresql://user:a#s3cret@host/fleetwatt",
        "postgresql://user:a?s3cret@host/fleetwatt",
        "postgresql://user@host/fleetwatt?sslkey=k&sslpassword=s3cret",
        "postgresql://user:s3cret@[bad/fleetwatt",
        "host=h password=a&s3cret dbname=fleetwatt",
        r"host=h password=a\ s3cret dbname=fleetwatt",
        r"host=h password='a\' s3cret' dbname=fleetwatt",
        "host=h password='s3cret never closed",
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
    """A text whose name tells of a secret, or may hold a login, is marked as one: it is hidden."""
    words = ("password", "secret", "token", "key", "url", "share")
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.default, str) and not field.name.endswith("_file"):
            value = "https://user:s3cret@host/s3cret" if "webhook" in field.name else "u://user:s3cret@host"
            shown = " ".join(
                " ".join(row) for row in describe(msgspec.structs.replace(Settings(), **{field.name: value}))
            )
            expected = any(word in field.name for word in words)
            assert ("s3cret" not in shown) is expected, field.name


def test_a_secret_may_be_a_file(tmp_path: Path) -> None:
    """The line in the file is the secret, without the line end; it is hidden as if it had been a variable."""
    file = tmp_path / "url"
    for end in (b"", b"\n", b"\r\n"):
        file.write_bytes(b"postgresql://user:s3cret@host/db" + end)
        settings = load({"FLEETWATT_DATABASE_URL_FILE": str(file)})
        assert settings.database_url == "postgresql://user:s3cret@host/db"
    assert "s3cret" not in str(describe(settings))
    # Nothing is named by an empty one, so the variable itself counts.
    environment = {"FLEETWATT_DATABASE_URL_FILE": "", "FLEETWATT_DATABASE_URL": "postgresql://h/d"}
    assert load(environment).database_url == "postgresql://h/d"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"s3cret\ns3cret", b"s3cret\n\n", b"s3cret\0", b"s3cret\xff", b"s3cret" * 20_000]
)
def test_a_file_without_a_secret(tmp_path: Path, content: bytes) -> None:
    """What cannot be one secret is refused by the names of variable and file, never by what is in it."""
    file = tmp_path / "url"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^FLEETWATT_MQTT_URL_FILE: .*url") as caught:
        load({"FLEETWATT_MQTT_URL_FILE": str(file)})
    assert "s3cret" not in str(caught.value)


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    """No file, a folder, both ways at once, a file for what is no secret: each is refused by name."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SettingsError, match=f"^FLEETWATT_DATABASE_URL_FILE: cannot read '{path}'"):
            load({"FLEETWATT_DATABASE_URL_FILE": str(path)})
    file = tmp_path / "url"
    file.write_text("s3cret")
    both = {"FLEETWATT_DATABASE_URL_FILE": str(file), "FLEETWATT_DATABASE_URL": "s3cret"}
    with pytest.raises(SettingsError, match="DATABASE_URL and FLEETWATT_DATABASE_URL_FILE are both set"):
        load(both)
    with pytest.raises(SettingsError, match="unknown setting FLEETWATT_HTTP_PORT_FILE"):
        load({"FLEETWATT_HTTP_PORT_FILE": str(file)})


def test_nothing_shows_a_secret_by_accident() -> None:
    """What a traceback or a log shows of the settings is what was set, with the secrets hidden."""
    shown = repr(
        Settings(
            database_url="postgresql://me:canary@host/db", mqtt_password="canary", api_key="canary", writers=5
        )
    )
    assert "canary" not in shown
    assert shown.startswith("Settings(database_url='postgresql://me:***@host/db', ")
    assert "mqtt_password='***'" in shown
    assert "writers='5'" in shown
