"""Which installations speak under one gateway's name: a replaced PC is told from a clone. Pure.

A gateway's disk that was copied, and then runs twice, gives the same numbers to different readings. Each installation
has an instance id of its own, which its statuses name.

Rules:

1. Only live `online` statuses count. One without an instance (an older agent, a third party) says nothing here.
2. Another instance than before: the PC was replaced. That is noted and allowed.
3. A, B, and A again within CLONE_S: both are alive. The one that was seen first goes on; the other is fenced: its
   confirms tell it to send nothing.
4. It ends when only one of them has spoken for CLONE_S, or when an operator accepts the fenced one; what it then is up
   against is the later one, and is fenced if it goes on speaking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import TypeAdapter

CLONE_S = 60.0
KNOWN_MAX = 5
_CLONE_US = int(CLONE_S * 1_000_000)


class Speaker(NamedTuple):
    """One installation: its id, its host's name, and when it was first and last heard (the receiver's clock)."""

    instance: str
    host: str
    first_us: int
    last_us: int


class Speakers(NamedTuple):
    """`known`: in the order of first appearance. `speaking`, `fenced`: instance ids, or empty."""

    known: tuple[Speaker, ...] = ()
    speaking: str = ""
    fenced: str = ""
    fenced_us: int | None = None

    def find(self, instance: str) -> Speaker | None:
        """The installation with this id."""
        return next((one for one in self.known if one.instance == instance), None)

    def rival(self) -> Speaker | None:
        """Of the fenced one: the other that was heard last."""
        others = [one for one in self.known if one.instance != self.fenced]
        return max(others, key=lambda one: one.last_us) if self.fenced and others else None

    def sentence(self) -> str:
        """Why the fenced one is fenced; empty where none is."""
        fenced, rival = self.find(self.fenced), self.rival()
        if fenced is None or rival is None:
            return ""
        return (
            f"two installations speak under this gateway's name: {_named(rival)}, which was there first,"
            f" and {_named(fenced)}, which sends nothing until only one is left; stop one of them,"
            " or make it a gateway of its own"
        )


class News(NamedTuple):
    """Something to note in the gateway's history."""

    event: str  # replaced | cloned | clone ended
    detail: str


def heard(before: Speakers, instance: str, host: str, now_us: int) -> tuple[Speakers, Sequence[News]]:
    """After a live `online` status of this installation."""
    if not instance:
        return before, ()
    old = before.find(instance)
    last = before.find(before.speaking)
    speaker = Speaker(instance, host or (old.host if old else ""), old.first_us if old else now_us, now_us)
    after = before._replace(known=_with(before.known, speaker), speaking=instance)
    if last is None or last.instance == instance:
        return _ended(after, now_us)
    if old is None or now_us - old.last_us > _CLONE_US:
        after, news = _ended(after, now_us)
        return after, (*news, News("replaced", f"now {_named(speaker)}, before {_named(last)}"))
    if after.fenced in (instance, last.instance):
        return after, ()
    later = max(speaker, last, key=after.known.index)  # by place: two can be heard within one microsecond
    after = after._replace(fenced=later.instance, fenced_us=now_us)
    return after, (News("cloned", after.sentence()),)


def accepted(before: Speakers) -> Speakers:
    """An operator says that the fenced one is the right one. Raises ValueError where none is fenced."""
    fenced = before.find(before.fenced)
    if fenced is None:
        raise ValueError("no installation is fenced")
    return Speakers((fenced,), fenced.instance)


def _with(known: Sequence[Speaker], speaker: Speaker) -> tuple[Speaker, ...]:
    """The speaker in its place; of too many the one that was silent longest goes."""
    if any(one.instance == speaker.instance for one in known):
        return tuple(speaker if one.instance == speaker.instance else one for one in known)
    if len(known) >= KNOWN_MAX:
        gone = min(known, key=_last)
        known = [one for one in known if one is not gone]
    return (*known, speaker)


def _ended(now: Speakers, now_us: int) -> tuple[Speakers, Sequence[News]]:
    """The fence is lifted when only one has spoken for CLONE_S."""
    alive = [one for one in now.known if now_us - one.last_us <= _CLONE_US]
    if not now.fenced or len(alive) > 1:
        return now, ()
    left = f"only {_named(alive[0])} speaks" if alive else "none speaks"
    return now._replace(fenced="", fenced_us=None), (News("clone ended", left),)


def _named(speaker: Speaker) -> str:
    return f"{speaker.instance[:8]} on host {speaker.host[:64] or 'unknown'}"


def _last(speaker: Speaker) -> int:
    return speaker.last_us


_JSON = TypeAdapter(Speakers)


def to_json(speakers: Speakers) -> str:
    """As text for a database."""
    return _JSON.dump_json(speakers).decode()


def from_json(text: str) -> Speakers:
    """The inverse; of an empty text nobody."""
    return _JSON.validate_json(text) if text else Speakers()
