"""What the configuration of an OPC UA server may say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from protocols.field import opcua
from protocols.field.contract import Group, Narrows, ValueType
from protocols.field.opcua_settings import Address, practical_nodes

URL = "opc.tcp://10.0.0.5:4840/press"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (URL, URL),
        ("opc.tcp://plc", "opc.tcp://plc:4840"),
        ("opc.tcp://plc/a/b", "opc.tcp://plc:4840/a/b"),
        ("opc.tcp://[fd00::1]:4841", "opc.tcp://[fd00::1]:4841"),
        ("opc.tcp://[fd00::1]/x", "opc.tcp://[fd00::1]:4840/x"),
    ],
)
def test_an_address_gets_the_standard_port(url: str, endpoint: str) -> None:
    assert opcua.Settings(url=url).endpoint == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.5",
        "http://10.0.0.5:4840",
        "opc.tcp://",
        "opc.tcp://:4840",
        "opc.tcp://plc:0",
        "opc.tcp://plc:99999",
        "opc.tcp://plc:port",
        "opc.tcp://[fd00::1",
    ],
)
def test_a_wrong_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValidationError, match=r"write opc\.tcp://host:port/path"):
        opcua.Settings(url=url)


def test_a_password_is_not_written_into_the_address() -> None:
    with pytest.raises(ValidationError, match="write username and password_file"):
        opcua.Settings(url="opc.tcp://me:secret@plc:4840")


def test_a_password_has_one_place_and_a_user(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"se cret\r\n")
    both: dict[str, Any] = {"url": URL, "password": "a", "password_file": str(file)}
    with pytest.raises(ValidationError, match="keep one"):
        opcua.Settings.model_validate({**both, "username": "me"})
    with pytest.raises(ValidationError, match="needs a username"):
        opcua.Settings.model_validate({"url": URL, "password": "a"})
    given = opcua.Settings.model_validate({"url": URL, "username": "me", "password": "se cret"})
    assert given.secret() == "se cret"
    assert "se cret" not in repr(given)
    kept = opcua.Settings.model_validate({"url": URL, "username": "me", "password_file": str(file)})
    assert kept.secret() == "se cret"
    assert opcua.Settings(url=URL).secret() is None


def test_a_tag_carries_its_parsed_address() -> None:
    settings = opcua.TagSettings.model_validate(
        {"name": "t", "unit": "°C", "node": "nsu=urn:plant:press;s=Temperature", "type": "float32", "scale": 0.1}
    )
    tag = opcua.tag(settings)
    assert (tag.name, tag.unit, tag.value_type) == ("t", "°C", ValueType.FLOAT32)
    assert isinstance(tag.address, Address)
    assert (tag.address.node.namespace, tag.address.node.identifier) == ("urn:plant:press", "Temperature")
    assert (tag.address.scale, tag.address.offset) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"node": "Temperature"}, "is no node id"),
        ({"type": "double"}, "type"),
        ({"scale": 0.0}, "scale is 0"),
        ({"type": "int", "scale": 0.1}, "not for int"),
        ({"type": "string", "offset": 1.0}, "not for string"),
        ({"scale": float("nan")}, "finite"),
        ({"adress": 7}, "Extra inputs"),
    ],
)
def test_an_impossible_tag_is_refused(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        opcua.TagSettings.model_validate({"name": "t", "node": "i=2258", "type": "float64", **keys})


def test_a_group_is_subscribed_to_unless_it_says_poll() -> None:
    assert opcua.GroupSettings().mode == "subscribe"
    assert opcua.GroupSettings.model_validate({"mode": "poll"}).mode == "poll"
    with pytest.raises(ValidationError, match="subscribe"):
        opcua.GroupSettings.model_validate({"mode": "push"})
    with pytest.raises(ValidationError):
        opcua.GroupSettings(queue_size=0)


@pytest.mark.parametrize("model", [opcua.Settings, opcua.TagSettings, opcua.GroupSettings])
def test_every_key_is_described(model: type[opcua.Settings]) -> None:
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, name


def test_a_driver_can_be_made_without_the_library() -> None:
    """asyncua costs a third of a second: only a connect may import it."""
    code = (
        "import sys; from protocols.field import opcua;"
        f"opcua.driver('plc', opcua.Settings(url={URL!r}), []);"
        "sys.exit('asyncua' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_driver_counts_from_zero() -> None:
    driver = opcua.driver("plc", opcua.Settings(url=URL), [Group("plc", "g", 1.0, ())])
    assert driver.requests == 0


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"security_policy": "Basic256"}, "Basic256Sha256"),
        ({"security_mode": "Sign"}, "security_mode needs a security_policy"),
        ({"user_key": "key.pem"}, "belong together"),
        ({"username": "x", "user_certificate": "c.pem", "user_key": "k.pem"}, "keep one"),
    ],
)
def test_security_that_does_not_fit_is_refused(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        opcua.Settings.model_validate({"url": URL, **keys})


def test_a_policy_without_a_mode_encrypts() -> None:
    settings = opcua.Settings(url=URL, security_policy="Basic256Sha256")
    assert (settings.is_secure, settings.mode) == (True, "SignAndEncrypt")
    assert (opcua.Settings(url=URL).is_secure, opcua.Settings(url=URL).mode) == (False, "None")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"deadband": 1.0, "deadband_percent": 1.0}, "keep one"),
        ({"deadband": 1.0, "type": "string"}, "for numbers"),
        ({"deadband": -1.0}, "0 or more"),
        ({"part": "[x]"}, "names no part"),
    ],
)
def test_a_deadband_or_part_that_cannot_be_is_refused(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        opcua.TagSettings.model_validate({"name": "t", "node": "i=1", "type": "float64", **keys})


def test_an_absolute_deadband_is_the_servers_in_a_subscription_and_in_its_unit() -> None:
    given = {"own": 1.0, "share": "2 %", "each": 0, "none": None}
    keys: dict[str, Any] = {"node": "i=1", "type": "float64", "scale": -0.1}
    tags = tuple(
        opcua.tag(opcua.TagSettings.model_validate({"name": name, "deadband": one, **keys}))
        for name, one in given.items()
    )
    assert [tag.address.deadband for tag in tags] == [10.0, None, None, None]
    by_mode = {mode: Group("plc", "g", 1.0, tags, opcua.GroupSettings(mode=mode)) for mode in ("subscribe", "poll")}
    driver = opcua.driver("plc", opcua.Settings(url=URL), list(by_mode.values()))
    assert isinstance(driver, Narrows)
    assert [list(driver.narrowed(group)) for group in by_mode.values()] == [[0], []]


def test_a_deadband_of_the_range_is_for_subscriptions() -> None:
    tag = opcua.tag(opcua.TagSettings(name="t", node="i=1", type=ValueType.FLOAT64, deadband_percent=1.0))
    polled = Group("plc", "g", 1.0, (tag,), opcua.GroupSettings(mode="poll"))
    with pytest.raises(ValueError, match="use mode: subscribe"):
        opcua.driver("plc", opcua.Settings(url=URL), [polled])


def test_a_request_is_as_large_as_suits_the_manufacturer() -> None:
    assert [practical_nodes(name) for name in ("Siemens AG", "PTC Inc.", "NodeOPCUA", "", "Unheard of")] == [
        200,
        1000,
        1000,
        200,
        200,
    ]
