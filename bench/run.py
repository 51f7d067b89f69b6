"""One run: the plant, the broker, the subscriber, our receiver where it is wanted, and one contestant."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import agent
from bench.agent import Receiver
from bench.broker import Broker
from bench.peers import Contestant
from bench.plant import Plant
from bench.processes import Process, RunFailed, wait_until
from bench.scenario import Load
from bench.subscriber import Subscriber

START_S = 60.0


class Run:
    """`receiver`: with our own receiver storing and confirming; the subscriber then only listens."""

    def __init__(self, directory: Path, contestant: Contestant, load: Load, *, receiver: bool = False) -> None:
        self.contestant, self.load, self.directory = contestant, load, directory
        self._wants_receiver = receiver
        self._stack = ExitStack()
        self._receiver: Receiver | None = None
        self.process: Process | None = None

    def __enter__(self) -> Self:
        try:
            self.plant = Plant(self.load.devices, self.directory / "plant.log")
            self._stack.callback(self.plant.process.stop)
            self.broker = Broker(self.directory / "broker", self.contestant.acl)
            self.broker_process = self.broker.start()
            self._stack.callback(lambda: self.broker_process.stop())
            role = "record" if self._wants_receiver else self.contestant.role
            self.subscriber = Subscriber(role, self.broker.port, self.directory)
            self._stack.callback(self.subscriber.process.stop)
            if self._wants_receiver:
                self._receiver = Receiver(self.directory / "cloud", self.broker.port)
                self._stack.callback(self._receiver.process.stop)
        except BaseException:  # Ctrl-C, too, must not leave processes behind; it is passed on
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._stack:
            if self.process is not None:
                self.process.stop(60.0 if error is None else 5.0)

    def process_stops_at_once(self) -> None:
        """All that was wanted of it is known."""
        if self.process is not None:
            self.process.kill()

    @property
    def receiver(self) -> Receiver:
        if self._receiver is None:
            raise RunFailed("this run has no receiver")
        return self._receiver

    @property
    def home(self) -> Path:
        """The contestant's own directory."""
        return self.directory / "contestant"

    def start(self, load: Load | None = None) -> Process:
        """Start the contestant, or start it again."""
        self.load = load or self.load
        self.process = self.contestant.start(self.home, self.load, self.plant.ports, self.broker.port)
        return self.process

    def restart_broker(self) -> None:
        self.broker_process = self.broker.start()

    def wait_for_first_message(self, after: int = 0) -> None:
        """Until there is telemetry among the messages, the first `after` left out."""
        assert self.process is not None
        wait_until(
            lambda: self.first_arrival_us(after) is not None,
            f"the first telemetry of {self.contestant.name}",
            START_S,
            self.process,
            pause_s=0.1,
        )

    def first_arrival_us(self, after: int = 0) -> int | None:
        """When the first message with a sample arrived, the first `after` messages left out; µs since 1970."""
        for message in islice(self.subscriber.messages(), after, None):
            if self.contestant.has_samples(message):
                return message.arrived_us
        return None

    def next_scan(self, timeout_s: float = 20.0) -> tuple[int, float]:
        """(scans, monotonic seconds) when the plant is next asked for one, so that spans hold whole periods."""
        assert self.process is not None
        before = self.plant.counts()["scans"]
        wait_until(
            lambda: self.plant.counts()["scans"] > before, "the next poll", timeout_s, self.process, pause_s=0.005
        )
        return self.plant.counts()["scans"], time.monotonic()

    def check_all_stored(self) -> float:
        """Ours only: stop in an orderly way; all that was read is stored once. Gives the requests per scan."""
        assert self.process is not None
        counts = agent.stop_and_check(self.home, self.process, self.receiver, self.plant.counts, self.load)
        return counts["whole_requests"] / counts["whole"]

    def check_all_received(self, grace_s: float) -> float:
        """Mute the plant; what was polled before must arrive within the grace time. Gives the requests per scan."""
        counts = self.plant.mute()
        self.subscriber.settle(min(2.0, grace_s), grace_s)
        received = self.contestant.samples(self.subscriber.messages())
        least, most = counts["whole"] * self.load.tags, counts["scans"] * self.load.tags
        if not least <= received <= most:
            raise RunFailed(f"{least:,} samples were polled, and {received:,} arrived within {grace_s:g} s")
        return counts["whole_requests"] / counts["whole"]
