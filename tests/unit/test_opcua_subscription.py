"""What a subscription concludes from the messages that come, and from those that do not."""

from __future__ import annotations

from typing import Any

import pytest
from asyncua import ua

from protocols.field.opcua_structures import Types
from protocols.field.opcua_subscription import MAX_NUMBER, Subscription, Watch, sample_of
from protocols.field.opcua_values import Sample

NODES = [(position, ua.NodeId.from_string(f"i={position + 1}")) for position in range(3)]


class Group:
    """Takes what a watch is told."""

    def __init__(self, timeout_s: float = 2.0) -> None:
        self.told: list[Any] = []
        watch = Watch(0.5, 500.0, 10, NODES, Types(), self._report, self._lost, self._waiting)
        self.parameters = watch.parameters()
        self.subscription = Subscription(watch, timeout_s, 100.0)
        self.subscription.created(
            ua.CreateSubscriptionResult(RevisedPublishingInterval=500.0, RevisedMaxKeepAliveCount=10)
        )

    def _report(self, position: int, sample: Sample, first: bool) -> None:
        self.told.append((position, sample.value, first))

    def _lost(self, reason: str) -> None:
        self.told.append(reason)

    def _waiting(self, position: int) -> None:
        self.told.append(("waiting", position))

    def heard(self, number: int, *values: tuple[int, float]) -> str | None:
        notifications = [
            ua.MonitoredItemNotification(ClientHandle=position, Value=ua.DataValue(ua.Variant(value)))
            for position, value in values
        ]
        data: list[Any] = [ua.DataChangeNotification(MonitoredItems=notifications)] if values else []
        return self.subscription.heard(ua.NotificationMessage(SequenceNumber=number, NotificationData=data), 101.0)


def test_only_the_first_notification_of_an_item_is_a_first_one() -> None:
    group = Group()
    assert group.heard(1, (0, 1.5), (1, 2.5), (0, 3.5)) is None
    assert group.heard(2, (1, 4.5), (2, 5.5)) is None
    assert group.told == [(0, 1.5, True), (1, 2.5, True), (0, 3.5, False), (1, 4.5, False), (2, 5.5, True)]


def test_keep_alives_carry_the_number_of_the_next_message() -> None:
    group = Group()
    assert [group.heard(1), group.heard(1, (0, 1.5)), group.heard(2), group.heard(2), group.heard(2, (0, 2.5))] == [
        None
    ] * 5
    assert group.told == [(0, 1.5, True), (0, 2.5, False)]


def test_numbers_begin_again_after_the_last_one() -> None:
    group = Group()
    group.subscription._next = MAX_NUMBER
    assert group.heard(MAX_NUMBER, (0, 1.5)) is None
    assert group.heard(1, (0, 2.5)) is None
    assert group.heard(2) is None


@pytest.mark.parametrize("values", [(), ((0, 2.5),)])
def test_a_gap_is_told_once_before_what_came_after_it(values: tuple[tuple[int, float], ...]) -> None:
    group = Group()
    group.heard(1, (0, 1.5))
    fault = group.heard(4, *values)
    assert fault == "notifications 2 to 3 of the server were lost"
    assert group.told[1] == f"{fault}; the values are fetched anew"
    assert group.told[2:] == [(0, 2.5, False)] * len(values)
    assert group.heard(4 + len(values)) is None


def test_a_message_that_could_not_be_worked_through_shows_as_lost() -> None:
    group = Group()
    broken = ua.DataChangeNotification(MonitoredItems=[ua.MonitoredItemNotification(ClientHandle=0, Value=None)])
    with pytest.raises(AttributeError):
        group.subscription.heard(ua.NotificationMessage(SequenceNumber=1, NotificationData=[broken]), 101.0)
    assert group.heard(2) == "notifications 1 to 1 of the server were lost"


def test_the_end_that_the_server_announces() -> None:
    group = Group()
    ending: list[Any] = [ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(0x800A0000)))]
    fault = group.subscription.heard(ua.NotificationMessage(SequenceNumber=1, NotificationData=ending), 101.0)
    assert fault == "the server ended the subscription with BadTimeout (0x800A0000)"


def test_silence_is_measured_from_the_last_message() -> None:
    group = Group()  # 10 × 0.5 s, half as much again, and 2 s
    assert group.subscription.overdue(109.4) is None
    group.heard(1)
    assert group.subscription.overdue(110.4) is None
    assert group.subscription.overdue(110.6) == "the subscription fell silent for 9.5 s, though the server answers"


def test_what_is_monitored_and_has_never_come_is_told_once() -> None:
    group = Group()
    group.subscription.monitored([2], 100.0)
    group.heard(1, (0, 1.5))
    group.subscription.overdue(102.4)
    assert group.told == [(0, 1.5, True)]
    group.subscription.overdue(102.6)
    group.subscription.overdue(102.7)
    assert group.told[1:] == [("waiting", 1)]
    group.heard(2, (1, 2.5))
    assert group.told[-1] == (1, 2.5, True)


def test_a_long_period_is_its_own_keep_alive() -> None:
    parameters = Group().parameters
    assert (parameters.RequestedPublishingInterval, parameters.RequestedMaxKeepAliveCount) == (500.0, 10)
    watch = Watch(60.0, 60_000.0, 10, NODES, Types(), lambda *_: None, lambda _: None, lambda _: None)
    assert watch.parameters().RequestedMaxKeepAliveCount == 1
    assert watch.parameters().RequestedLifetimeCount >= 3  # OPC 10000-4, 5.13.2: at least three keep-alives


def test_parts_that_a_server_leaves_out_have_their_defaults() -> None:
    nothing = ua.DataValue()
    nothing.StatusCode = None
    assert sample_of(nothing, Types()) == Sample("Null", None, False, 0, None, None)
