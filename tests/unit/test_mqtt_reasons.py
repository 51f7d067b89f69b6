"""Reason codes and what we make of them; every code that MQTT 5 defines for the packet gets a sentence."""

from __future__ import annotations

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from protocols.uplink import mqtt_reasons as reasons
from protocols.uplink.link import LinkAway, LinkRefused, LinkTakenOver, Outcome

WHERE = "MQTT broker 10.0.0.7:1883"


def codes(packet: int) -> list[int]:
    return [
        code for code, names in ReasonCode.names.items() if code >= 0x80 and any(packet in of for of in names.values())
    ]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0x00, Outcome.ACCEPTED),
        (0x10, Outcome.NO_SUBSCRIBERS),
        (0x80, Outcome.REFUSED),
        (0x83, Outcome.REFUSED),
        (0x87, Outcome.DENIED),
        (0x90, Outcome.REFUSED),
        (0x95, Outcome.TOO_LARGE),
        (0x97, Outcome.QUOTA),
        (0x99, Outcome.REFUSED),
        (0x01, Outcome.REFUSED),
        (0xEE, Outcome.REFUSED),
    ],
)
def test_outcome(code: int, outcome: Outcome) -> None:
    assert reasons.outcome(code) is outcome


@pytest.mark.parametrize("code", codes(PacketTypes.CONNACK))
def test_a_refused_connect_says_where_and_whether_waiting_helps(code: int) -> None:
    error = reasons.connect_error(WHERE, "gw-1", code, str(ReasonCode(PacketTypes.CONNACK, identifier=code)))
    assert str(error).startswith(f"{WHERE}: the broker ")
    assert isinstance(error, LinkAway if code in {0x80, 0x83, 0x88, 0x89, 0x97, 0x9F} else LinkRefused)
    assert isinstance(error, LinkAway) or "'gw-1'" in str(error)


@pytest.mark.parametrize(("code", "word"), [(0x85, "client id"), (0x86, "password"), (0x8A, "banned"), (0x9D, "host")])
def test_a_refused_connect_says_what_to_do(code: int, word: str) -> None:
    assert word in str(reasons.connect_error(WHERE, "gw-1", code, ""))


@pytest.mark.parametrize("code", codes(PacketTypes.SUBACK))
def test_a_refused_subscription(code: int) -> None:
    error = reasons.subscribe_error(WHERE, "gw-1", "a/b", code, "Not authorized")
    assert isinstance(error, LinkRefused)
    assert "a/b" in str(error)
    assert "Not authorized" in str(error)


def test_a_subscription_needs_qos_1() -> None:
    assert "QoS 0" in str(reasons.subscribe_error(WHERE, "gw-1", "a/b", 0, ""))
    assert reasons.subscribe_error(WHERE, "gw-1", "a/b", 1, "") is None
    assert reasons.subscribe_error(WHERE, "gw-1", "a/b", 2, "") is None


def test_a_session_that_was_taken_over_names_the_client_id() -> None:
    error = reasons.disconnect_error(WHERE, "gw-1", 0x8E, "Session taken over")
    assert isinstance(error, LinkTakenOver)
    assert "same client id 'gw-1'" in str(error)
    assert "Administrative action" in str(reasons.disconnect_error(WHERE, "gw-1", 0x98, "Administrative action"))
