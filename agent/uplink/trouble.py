"""What is wrong with the uplink at present, in sentences. Each is logged once, and shown as long as it holds."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, auto

from protocols.program.logs import get_logger

_log = get_logger(part="uplink")


class Kind(IntEnum):
    """What a sentence is about; of several, the first is shown."""

    FENCED = auto()
    TWINNED = auto()
    CONTESTED = auto()
    LINK = auto()
    REFUSED = auto()
    STATUS = auto()
    UNCONFIRMED = auto()


class Troubles:
    """One sentence for each kind."""

    def __init__(self) -> None:
        self._said: dict[Kind, str] = {}

    @property
    def sentence(self) -> str:
        """The most important one; empty while all is well."""
        return self._said[min(self._said)] if self._said else ""

    @property
    def sentences(self) -> Mapping[Kind, str]:
        """All that hold."""
        return self._said

    def say(self, kind: Kind, sentence: str, *, again: bool = True) -> None:
        """It holds from now on. `again`: tell the log of a changed sentence, too, not only of a new trouble."""
        if kind not in self._said or (again and self._said[kind] != sentence):
            _log.warning(sentence)
        self._said[kind] = sentence

    def over(self, *kinds: Kind) -> None:
        """It holds no longer."""
        for kind in kinds:
            self._said.pop(kind, None)

    def has(self, kind: Kind) -> bool:
        """Whether it holds."""
        return kind in self._said
