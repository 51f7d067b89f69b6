"""The client's side of one subscription: which notifications came, which did not, and which should have.

No sockets and no clock: it takes the library's messages and the time, reports samples to the group's watch, and
returns what is wrong as half a sentence.

- A server sends a message at least every keep-alive interval (OPC 10000-4, 5.13.1). One that is silent for half as long
  again, and the time of an answer more, has forgotten the subscription.
- Messages with data are numbered 1, 2, 3 …; a keep-alive has no data and the number of the next message. A higher
  number than the next one shows that messages were lost. The number advances when a message was worked through.
- An item's first notification tells what the value is; only the later ones tell that it changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from protocols.field.opcua_errors import status_name
from protocols.field.opcua_settings import Address
from protocols.field.opcua_structures import Types, Undecodable, plain
from protocols.field.opcua_values import Sample, microseconds

KEEP_ALIVE_S = 5.0  # at least this often the server shall send a message, changes or not
LIFETIME_FACTOR = 12  # keep-alive intervals after which the server gives up a subscription that nobody asks for
MAX_NOTIFICATIONS = 10_000  # in one message
MAX_NUMBER = 0xFFFFFFFF  # after it comes 1


@dataclass
class Watch:
    """What a group wants to be told. Positions are the tags' in the group.

    `report(position, sample, first)` takes a notification, `lost(reason)` that some never arrived, and
    `waiting(position)` that the server monitors the node and has not sent anything for it yet.
    """

    period_s: float
    sampling_ms: float
    queue_size: int
    nodes: Sequence[tuple[int, ua.NodeId]]
    types: Types
    report: Callable[[int, Sample, bool], None]
    lost: Callable[[str], None]
    waiting: Callable[[int], None]
    discard_oldest: bool = True
    deadbands: Mapping[int, tuple[ua.DeadbandType, float]] = field(default_factory=dict)  # by position

    def parameters(self) -> ua.CreateSubscriptionParameters:
        keep_alive = max(1, round(KEEP_ALIVE_S / self.period_s))
        return ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=self.period_s * 1000,
            RequestedLifetimeCount=keep_alive * LIFETIME_FACTOR,
            RequestedMaxKeepAliveCount=keep_alive,
            MaxNotificationsPerPublish=MAX_NOTIFICATIONS,
            PublishingEnabled=True,
        )

    def item(self, position: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=position,
                SamplingInterval=self.sampling_ms,
                QueueSize=self.queue_size,
                DiscardOldest=self.discard_oldest,
                Filter=self._filter(position),
            ),
        )

    def _filter(self, position: int) -> ua.DataChangeFilter | None:
        """A deadband is for values; a change of the status is reported all the same."""
        if position not in self.deadbands:
            return None
        kind, width = self.deadbands[position]
        return ua.DataChangeFilter(ua.DataChangeTrigger.StatusValue, ua.UInt32(kind), ua.Double(width))


class Subscription:
    """From its creation to the end of the session. Times are monotonic seconds."""

    def __init__(self, watch: Watch, timeout_s: float, now: float) -> None:
        self._watch = watch
        self._timeout_s = timeout_s
        self._heard_at = now
        self._silence_s = math.inf
        self._next = 1
        self._first = {position for position, _ in watch.nodes}  # those whose first notification is to come
        self._patient_until = math.inf

    def created(self, answer: ua.CreateSubscriptionResult) -> None:
        """The server's terms."""
        keep_alive_s = answer.RevisedPublishingInterval * answer.RevisedMaxKeepAliveCount / 1000
        self._silence_s = 1.5 * keep_alive_s + self._timeout_s

    def monitored(self, failed: Iterable[int], now: float) -> None:
        """The server has taken all items but these."""
        self._first.difference_update(failed)
        self._patient_until = now + self._watch.period_s + self._timeout_s

    def heard(self, message: ua.NotificationMessage, now: float) -> str | None:
        """A message came. Returns why the subscription is of no use any more, if so."""
        self._heard_at = now
        fault = None
        if message.SequenceNumber > self._next:
            fault = f"notifications {self._next} to {message.SequenceNumber - 1} of the server were lost"
            self._next = message.SequenceNumber
            self._watch.lost(f"{fault}; the values are fetched anew")
        for data in message.NotificationData or ():
            if isinstance(data, ua.DataChangeNotification):
                for item in data.MonitoredItems or ():
                    first = item.ClientHandle in self._first
                    self._first.discard(item.ClientHandle)
                    self._watch.report(item.ClientHandle, sample_of(item.Value, self._watch.types), first)
            elif isinstance(data, ua.StatusChangeNotification) and data.Status.value:
                fault = f"the server ended the subscription with {status_name(data.Status.value)}"
        if message.NotificationData:
            self._next = message.SequenceNumber + 1 if message.SequenceNumber < MAX_NUMBER else 1
        return fault

    def overdue(self, now: float) -> str | None:
        """Why the subscription is of no use any more, if nothing came for too long. Tells the watch what waits."""
        if now > self._patient_until:
            self._patient_until = math.inf
            for position in sorted(self._first):
                self._watch.waiting(position)
        if now - self._heard_at > self._silence_s:
            return f"the subscription fell silent for {self._silence_s:g} s, though the server answers"
        return None


def sample_of(value: ua.DataValue, types: Types) -> Sample:
    """The library's value, freed of the library's types. Parts that the server left out have their defaults."""
    variant = value.Value if value.Value is not None else ua.Variant()
    held, trouble = variant.Value, ""
    if variant.VariantType in _NESTED:
        try:
            held = plain(held, types)
        except Undecodable as error:
            held, trouble = None, str(error)
    return Sample(
        variant.VariantType.name,
        held,
        bool(variant.is_array),
        value.StatusCode.value if value.StatusCode is not None else 0,
        microseconds(value.SourceTimestamp),
        microseconds(value.ServerTimestamp),
        trouble,
    )


_NESTED = frozenset({ua.VariantType.ExtensionObject, ua.VariantType.Variant, ua.VariantType.LocalizedText})


def deadband(address: Address) -> tuple[ua.DeadbandType, float] | None:
    """What the server shall leave out; None: nothing."""
    if address.deadband is not None:
        return ua.DeadbandType.Absolute, address.deadband
    return None if address.deadband_percent is None else (ua.DeadbandType.Percent, address.deadband_percent)
