"""Topics as text and as values; what is none of ours is refused in one sentence."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from protocols.uplink.topics import (
    DEFINITION_FILTER,
    NAME,
    STATUS_FILTER,
    TELEMETRY_FILTER,
    DefinitionTopic,
    GatewayTopic,
    MachineTopic,
    Plant,
    TopicError,
    is_name,
    parse,
)

PLANT = Plant("acme", "gelderland", "plant-1")
names = st.from_regex(re.compile(NAME), fullmatch=True)


def test_as_the_document_writes_them() -> None:
    assert MachineTopic(PLANT, "press-1").definition("plc-1", "fast") == (
        "factory/acme/gelderland/plant-1/press-1/definition/plc-1/fast"
    )
    assert MachineTopic(PLANT, "press-1").telemetry == "factory/acme/gelderland/plant-1/press-1/telemetry"
    assert GatewayTopic(PLANT, "gw_1").status == "ops/acme/gelderland/plant-1/gateway/gw_1/status"
    assert GatewayTopic(PLANT, "gw_1").confirm == "ops/acme/gelderland/plant-1/gateway/gw_1/confirm"
    assert str(PLANT) == "acme/gelderland/plant-1"


@given(names, names, names, names)
def test_what_is_written_is_read_back_and_fits_filter_and_limits(
    tenant: str, province: str, plant: str, last: str
) -> None:
    machine = MachineTopic(Plant(tenant, province, plant), last)
    gateway = GatewayTopic(Plant(tenant, province, plant), last)
    definition = DefinitionTopic(machine, plant, tenant)
    assert parse(machine.telemetry) == machine
    assert parse(definition.definition) == definition
    assert parse(gateway.status) == gateway
    assert topic_matches_sub(DEFINITION_FILTER, definition.definition)
    assert topic_matches_sub(TELEMETRY_FILTER, machine.telemetry)
    assert topic_matches_sub(STATUS_FILTER, gateway.status)
    assert not topic_matches_sub(TELEMETRY_FILTER, gateway.status)
    for topic in (machine.telemetry, definition.definition, gateway.status, gateway.confirm):
        assert topic.count("/") <= 7  # AWS IoT Core
        assert not set(topic) & set("+#$ ")


STRANGE = [
    "",
    "/",
    "factory",
    "factory/a/b/c/telemetry",
    "factory/a/b/c/d/e/telemetry",
    "factory/a/b/c/d/telemetry/",
    "/factory/a/b/c/d/telemetry",
    "factory/a/b/c/d/status",
    "Factory/a/b/c/d/telemetry",
    "factory//b/c/d/telemetry",
    "factory/a/b/c/D/telemetry",
    "factory/a/b/c/d e/telemetry",
    "factory/a/b/c/-d/telemetry",
    "factory/a/b/c/_d/telemetry",
    "factory/a/b/c/ü/telemetry",
    "factory/a/b/c/d\n/telemetry",
    "factory/a/b/c/+/telemetry",
    "factory/a/b/c/#/telemetry",
    "factory/a/b/$c/d/telemetry",
    "factory/a/b/c/" + "d" * 65 + "/telemetry",
    "factory/a/b/c/d/definition/e",
    "factory/a/b/c/d/definition/e/F",
    "factory/a/b/c/d/definition/e/f/g",
    "ops/a/b/c/gateway/g/confirm",  # ours, but nothing that the receiver is sent
    "ops/a/b/c/gateway/G/status",
    "ops/a/b/c/machine/g/status",
    "(not UTF-8)",
    "factory/a/b/c/" + "d" * 60_000 + "/telemetry",
]


@pytest.mark.parametrize("topic", STRANGE, ids=lambda topic: topic[:40])
def test_what_is_none_of_ours_is_refused_in_one_sentence(topic: str) -> None:
    with pytest.raises(TopicError) as caught:
        parse(topic)
    assert "\n" not in str(caught.value)
    assert 20 < len(str(caught.value)) < 500


@given(st.text())
def test_no_text_raises_anything_else(topic: str) -> None:
    with pytest.raises(TopicError):
        parse(topic)


def test_a_name_is_the_whole_of_it() -> None:
    assert is_name("a" * 64)
    assert is_name("0-_")
    assert not any(map(is_name, ["", "a" * 65, "-a", "_a", "A", "a\n", "a/b", "a+", "é", " a"]))
