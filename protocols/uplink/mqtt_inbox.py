"""What arrived over one connection: waiting to be taken, then waiting to be acknowledged. No sockets, no clock.

The broker sends only so many messages unacknowledged, which bounds both queues in number; and from BYTES_MAX on nothing
more is read from the line. Messages that others publish with QoS 0 know no acknowledgement; beyond QOS0_MAX waiting
they are dropped, as QoS 0 allows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from paho.mqtt.client import MQTTMessage

QOS0_MAX = 1000
BYTES_MAX = 64 << 20

NOT_UTF_8 = "(not UTF-8)"
"""Stands for a topic that is not text. It is none of ours, and the receiver puts the message where such ones go."""


class Receipt:
    """A message that arrived. `done`: it may be acknowledged as soon as those before it are."""

    __slots__ = ("done", "message_id", "payload", "qos", "retained", "topic")

    def __init__(self, message: MQTTMessage) -> None:
        try:
            self.topic = message.topic
        except UnicodeDecodeError:
            self.topic = NOT_UTF_8
        self.payload = bytes(message.payload)
        self.retained = message.retain
        self.qos = message.qos
        self.message_id = message.mid
        self.done = message.qos == 0


class Inbox:
    """`acknowledge(message_id, qos)` is called in the order of receipt (MQTT 5, 4.6), whatever the order of `done`."""

    def __init__(self, acknowledge: Callable[[int, int], object]) -> None:
        self._acknowledge = acknowledge
        self._waiting: deque[Receipt] = deque()
        self._unacknowledged: deque[Receipt] = deque()
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """What waits, to be taken or to be acknowledged, is so much that no more should be read for now."""
        return self._bytes >= BYTES_MAX

    def __len__(self) -> int:
        """How many wait to be taken."""
        return len(self._waiting)

    def put(self, receipt: Receipt) -> bool:
        """Add one; False when it was dropped."""
        if receipt.qos > 0:
            self._unacknowledged.append(receipt)
        elif len(self._waiting) >= QOS0_MAX:
            return False
        self._waiting.append(receipt)
        self._bytes += len(receipt.payload)
        return True

    def take(self, count_max: int) -> list[Receipt]:
        """The oldest that wait, at most `count_max`."""
        taken = [self._waiting.popleft() for _ in range(min(count_max, len(self._waiting)))]
        self._bytes -= sum(len(receipt.payload) for receipt in taken if receipt.qos == 0)
        return taken

    def done(self, receipt: Receipt) -> None:
        """Mark as done, and acknowledge all from the oldest on that are. A second time does nothing."""
        receipt.done = True
        while self._unacknowledged and self._unacknowledged[0].done:
            oldest = self._unacknowledged.popleft()
            self._bytes -= len(oldest.payload)
            self._acknowledge(oldest.message_id, oldest.qos)

    def clear(self) -> None:
        """Forget everything: the connection is gone, and what was not acknowledged comes again."""
        self._waiting.clear()
        self._unacknowledged.clear()
        self._bytes = 0
