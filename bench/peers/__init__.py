"""The contestants: what a program must offer to be measured, and the peers that do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.processes import ROOT, Process
from bench.scenario import Load
from bench.subscriber import Message, Role

ENVIRONMENTS = ROOT / ".bench"
"""Where peers are installed; not part of the repository."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One poll of the info registers at the subscriber: which, when its answer was written, when it arrived (µs)."""

    poll: int
    stamp_us: int
    arrived_us: int


class Contestant(Protocol):
    """`role`: of the subscriber beside it. `acl`: what the broker must allow, where that is not everything.

    `fastest_s`: the period per device with which it reaches its highest rate; beyond that the search adds devices.
    """

    name: str
    role: Role
    acl: tuple[str, ...]
    fastest_s: float

    def missing(self) -> str:
        """Why it cannot run, in a sentence; empty where it can."""

    def versions(self) -> dict[str, str]:
        """Of what is installed."""

    def start(self, directory: Path, load: Load, ports: list[int], broker_port: int) -> Process:
        """Start it, in a directory of its own; starting again there goes on with what its buffer holds."""

    def samples(self, messages: Iterable[Message]) -> int:
        """How many samples these messages hold, those of the info registers included."""

    def has_samples(self, message: Message) -> bool:
        """Whether this is telemetry."""

    def arrivals(self, messages: Iterable[Message]) -> list[Arrival]:
        """The info registers in these messages, in order of arrival."""

    def disk_bytes(self, directory: Path) -> int:
        """What its buffer takes on disk."""


class Peer(Contestant, Protocol):
    def install(self) -> None:
        """Into an environment of its own, from the package registries. Raises RunFailed."""

    def installed_bytes(self) -> tuple[int, int]:
        """(bytes on disk, packages)."""
