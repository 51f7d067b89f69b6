"""The order of acknowledgements, and the bound on what knows none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import MQTTMessage

from protocols.uplink import mqtt_inbox
from protocols.uplink.mqtt_inbox import QOS0_MAX, Inbox, Receipt


def receipt(number: int, qos: int = 1) -> Receipt:
    message = MQTTMessage(number, b"a/b")
    message.payload = b"%d" % number
    message.qos = qos
    return Receipt(message)


@given(st.permutations(range(1, 13)), st.integers(0, 12))
def test_acknowledgements_keep_the_order_of_receipt(order: list[int], count: int) -> None:
    sent: list[tuple[int, int]] = []
    inbox = Inbox(lambda message_id, qos: sent.append((message_id, qos)))
    receipts = {number: receipt(number) for number in range(1, 13)}
    for each in receipts.values():
        assert inbox.put(each)
    done = order[:count]
    for number in done:
        inbox.done(receipts[number])
        inbox.done(receipts[number])
    expected = 0
    while expected + 1 in done:
        expected += 1
    assert sent == [(number, 1) for number in range(1, expected + 1)]


def test_taking_is_in_order_and_bounded() -> None:
    inbox = Inbox(lambda message_id, qos: None)
    for number in range(5):
        inbox.put(receipt(number))
    assert [each.message_id for each in inbox.take(3)] == [0, 1, 2]
    assert len(inbox) == 2
    assert [each.message_id for each in inbox.take(3)] == [3, 4]
    assert inbox.take(3) == []


def test_qos_0_is_never_acknowledged_and_is_dropped_when_too_much_waits() -> None:
    sent: list[int] = []
    inbox = Inbox(lambda message_id, qos: sent.append(message_id))
    assert all(inbox.put(receipt(0, qos=0)) for _ in range(QOS0_MAX))
    assert not inbox.put(receipt(0, qos=0))
    assert inbox.put(receipt(7))  # QoS 1 is bounded by the broker, and never dropped
    for each in inbox.take(QOS0_MAX + 1):
        inbox.done(each)
    assert sent == [7]
    assert inbox.put(receipt(0, qos=0))


def test_it_is_full_by_bytes_until_what_came_first_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_inbox, "BYTES_MAX", 3)
    inbox = Inbox(lambda message_id, qos: None)
    first, second, third = receipt(1), receipt(2, qos=0), receipt(3)  # a byte each
    steps: list[tuple[Callable[[], object], bool]] = [
        *((partial(inbox.put, each), each is third) for each in (first, second, third)),
        (partial(inbox.take, 1), True),  # taken is not acknowledged
        (partial(inbox.take, 1), False),  # QoS 0 knows no acknowledgement
        (partial(inbox.put, receipt(4)), True),
        (partial(inbox.done, third), True),  # the first one waits
        (partial(inbox.done, first), False),
        (partial(inbox.put, receipt(5)), False),
        (partial(inbox.put, receipt(6)), True),
        (inbox.clear, False),
    ]
    for step, is_full in steps:
        step()
        assert inbox.is_full == is_full


def test_after_clear_nothing_is_acknowledged() -> None:
    sent: list[int] = []
    inbox = Inbox(lambda message_id, qos: sent.append(message_id))
    inbox.put(receipt(1))
    [taken] = inbox.take(1)
    inbox.clear()
    inbox.done(taken)
    assert sent == []
