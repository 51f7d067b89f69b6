"""The broker's settings, as a configuration file gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from protocols.uplink.mqtt_settings import BrokerSettings, TlsSettings


def test_defaults() -> None:
    given = BrokerSettings.model_validate({"host": "broker.acme"})
    assert (given.port, given.mqtt_version, given.keep_alive_s, given.session_expiry_s) == (1883, "auto", 20, 604_800)


@pytest.mark.parametrize(
    ("given", "port"),
    [({}, 1883), ({"tls": {}}, 8883), ({"tls": None}, 1883), ({"tls": {}, "port": 443}, 443), ({"port": 1234}, 1234)],
)
def test_the_port_follows_tls_unless_it_is_given(given: dict[str, Any], port: int) -> None:
    assert BrokerSettings.model_validate({"host": "broker.acme", **given}).port == port


def test_paths_are_taken_from_text() -> None:
    tls = BrokerSettings.model_validate({"host": "b", "tls": {"ca_file": "/etc/ca.pem"}}).tls
    assert tls == TlsSettings(ca_file=Path("/etc/ca.pem"))


def test_the_password_is_never_shown() -> None:
    given = BrokerSettings.model_validate({"host": "b", "username": "u", "password": "hush"})
    assert "hush" not in f"{given!r} {given}"


@pytest.mark.parametrize(
    ("given", "where", "what"),
    [
        ({"keep_alive_s": 1}, ("keep_alive_s",), "greater than or equal to 2"),
        ({"port": "1883"}, ("port",), "valid integer"),
        ({"mqtt_version": "3.1"}, ("mqtt_version",), "'3.1.1'"),
        ({"in_flight_max": 0}, ("in_flight_max",), "greater than or equal to 1"),
        ({"connect_timeout_s": float("inf")}, ("connect_timeout_s",), "finite"),
        ({"hostname": "b"}, ("hostname",), "not permitted"),
        ({"tls": {"cert_file": "c"}}, ("tls",), "cert_file and key_file belong together"),
        ({"username": "u", "password": "p", "password_file": "f"}, (), "exclude each other"),
        ({"password": "p"}, (), "needs a username"),
        ({"tls": True}, ("tls",), "valid dictionary"),
    ],
)
def test_what_is_wrong_is_said_where(given: dict[str, Any], where: tuple[str, ...], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BrokerSettings.model_validate({"host": "b", **given})
    [error] = caught.value.errors()
    assert error["loc"] == where
    assert what in error["msg"]
