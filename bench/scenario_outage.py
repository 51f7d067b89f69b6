"""The broker away: the backlog that builds up and drains, and what is lost when the program is killed meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.agent import Holdfast
from bench.peers import Contestant
from bench.processes import RunFailed
from bench.run import Run
from bench.scenario import TAGS, Load
from bench.subscriber import Book, Message, head

BUILD = Load(devices=20, period_s=0.05)
QUIET_S = 2.0
SETTLED_S = 3.0
OUTAGE = Load(devices=1, period_s=0.5, info=True, batch_s=0.0)
DRAIN_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Drain:
    """`samples` that were held on disk. Both rates from the first of them to arrive after the outage: to the arrival of
    the last, and to the confirm that covers it."""

    samples: int
    arrived_per_s: float
    confirmed_per_s: float
    disk_bytes_per_sample: float


def backlog(directory: Path, contestant: Contestant, *, build_s: float, load: Load = BUILD) -> Drain:
    """Read with the broker stopped; then the plant falls silent and the broker comes back.

    Raises RunFailed where not all that was polled arrives in the end.
    """
    with Run(directory, contestant, load) as run:
        run.start()
        run.wait_for_first_message()
        time.sleep(1.0)
        run.broker_process.stop()
        before = contestant.disk_bytes(run.home)
        time.sleep(build_s)
        polled = run.plant.mute()
        time.sleep(QUIET_S)  # what was read is on disk, and no longer in memory
        disk = contestant.disk_bytes(run.home) - before
        earlier = list(run.subscriber.messages())
        run.restart_broker()
        run.wait_for_first_message(len(earlier))
        run.subscriber.settle(SETTLED_S, DRAIN_S_MAX)
        messages = list(run.subscriber.messages())
        run.process_stops_at_once()
    samples = contestant.samples(messages)
    if not polled["whole"] * TAGS <= samples <= polled["scans"] * TAGS:
        raise RunFailed(f"{polled['whole'] * TAGS:,} samples were polled, and {samples:,} arrived")
    return _drain(contestant, messages, len(earlier), samples - contestant.samples(earlier), disk)


def stored_backlog(directory: Path, contestant: Holdfast, *, build_s: float, load: Load = BUILD) -> Drain:
    """The same with our receiver: from its first commit after the outage until all of it is committed.

    It is the only one who listens then; a second subscriber would take what is published before the receiver is back.
    """
    with Run(directory, contestant, load, receiver=True) as run:
        run.start()
        run.wait_for_first_message()
        time.sleep(1.0)
        run.broker_process.stop()
        run.subscriber.process.stop()
        before = contestant.disk_bytes(run.home)
        time.sleep(build_s)
        polled = run.plant.mute()["whole"] * TAGS
        time.sleep(QUIET_S)
        disk, already = contestant.disk_bytes(run.home) - before, run.receiver.events()
        run.restart_broker()
        (first, first_s), (last, last_s) = _growth(run.receiver.events, polled)
        run.process_stops_at_once()
    if last < polled:
        raise RunFailed(f"{polled:,} samples were polled, and {last:,} committed within {DRAIN_S_MAX:g} s")
    per_s = (last - first) / (last_s - first_s)
    return Drain(last - already, per_s, per_s, disk / (last - already))


def _growth(count: Callable[[], int], wanted: int) -> tuple[tuple[int, float], tuple[int, float]]:
    """(count, monotonic seconds) when it first grows, and when it grew last: `wanted` is reached, and no more comes."""
    begun_s = now_s = time.monotonic()
    seen = [(count(), now_s)]
    while now_s < begun_s + DRAIN_S_MAX and (seen[-1][0] < wanted or now_s < seen[-1][1] + SETTLED_S):
        time.sleep(0.01)
        found, now_s = count(), time.monotonic()
        if found != seen[-1][0]:
            seen.append((found, now_s))
    if len(seen) < 3:
        raise RunFailed(f"it was committed in {len(seen) - 1} steps, too few to tell a rate")
    return seen[1], seen[-1]


def _drain(contestant: Contestant, messages: list[Message], earlier: int, samples: int, disk: int) -> Drain:
    since = messages[earlier:]
    # How long it waits between attempts, and until somebody has subscribed again, is not drain.
    first_us = next(message.arrived_us for message in since if contestant.has_samples(message))
    last_us = max(message.arrived_us for message in since if contestant.has_samples(message))
    confirmed_us = _confirmed_us(messages) if isinstance(contestant, Holdfast) else last_us
    return Drain(
        samples, 1e6 * samples / (last_us - first_us), 1e6 * samples / (confirmed_us - first_us), disk / samples
    )


def _confirmed_us(messages: list[Message]) -> int:
    """When the first confirm was sent that covers every number of these messages."""
    book, highest = Book(), dict[str, int]()
    for message in messages:
        book.learn(message)
        if message.is_telemetry:
            machine = message.topic.split("/")[4]
            highest[machine] = max(highest.get(machine, 0), head(message.payload, book).seq)
    for message in messages:
        if message.topic.endswith("/confirm"):
            told = json.loads(message.payload)["machines"]
            if all(told.get(machine, {"through": 0})["through"] >= seq for machine, seq in highest.items()):
                return message.arrived_us
    raise RunFailed("not everything was confirmed")


@dataclass(frozen=True, slots=True)
class Outage:
    """Samples that the plant answered, and that are nowhere; `doubled`: that are there more than once.

    `in_hand`: nowhere, too, but of the very last answer before a SIGKILL, which no program can have stored yet.
    """

    polled: int
    lost: int
    in_hand: int
    doubled: int


def outage(directory: Path, contestant: Contestant, *, part_s: float, receiver: bool = False) -> Outage:
    """The broker stopped; in its absence the program killed twice; the broker back. The plant's counters judge."""
    with Run(directory, contestant, OUTAGE, receiver=receiver) as run:
        run.start()
        run.wait_for_first_message()
        time.sleep(part_s)
        run.broker_process.stop()
        last_answers = set()
        for _ in range(2):
            time.sleep(part_s)
            assert run.process is not None
            run.process.kill()
            last_answers.add(run.plant.counts()["info"])
            run.start()
        time.sleep(part_s)
        run.restart_broker()
        info = run.plant.mute()["info"]

        def found() -> list[int]:
            if receiver:
                return run.receiver.polls()
            return [arrival.poll for arrival in run.contestant.arrivals(run.subscriber.messages())]

        _wait(lambda: len(set(found())) >= info, DRAIN_S_MAX)
        time.sleep(SETTLED_S)  # for what comes twice
        stored = found()
    missing = set(range(1, info + 1)) - set(stored)
    lost, in_hand = len(missing - last_answers) * TAGS, len(missing & last_answers) * TAGS
    return Outage(info * TAGS, lost, in_hand, (len(stored) - len(set(stored))) * TAGS)


def _wait(is_done: Callable[[], bool], timeout_s: float) -> None:
    """Until it is so, or the time is over: what is missing then is missing."""
    end_s = time.monotonic() + timeout_s
    while not is_done() and time.monotonic() < end_s:
        time.sleep(0.5)
