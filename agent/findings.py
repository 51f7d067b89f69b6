"""What was found out about a part of the agent or of the plant, for people."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.program.findings import Finding as PlainFinding
from protocols.program.findings import Mark as Mark
from protocols.program.findings import split as split


@dataclass(frozen=True, slots=True)
class Finding(PlainFinding):
    """A finding with further lines beneath it."""

    details: tuple[str, ...] = ()
