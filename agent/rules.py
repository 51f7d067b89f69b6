"""What becomes of a group's readings between its driver and the batcher, as it is configured. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.changes import Rule
from agent.filters import Wanted
from protocols.field.contract import Deadband, Group, Silence, Tag, TagSettingsBase, ValueType, percent

SILENCE_S = 3600.0
"""How long a tag that is reported by exception is silent at most, where nothing is said of it."""

FILTERS = ("median_of", "average_of", "smooth_s")
NOT_NUMBERS = (ValueType.BOOL, ValueType.STRING)


@dataclass(frozen=True, slots=True)
class GroupRules:
    """Of one group. `changes`: each tag's rule of reporting; None: all are reported with every read.

    `filters`, `watched` by position; `watched`: the names of tags that derived tags are made of.
    `derived`: the tags that are computed at each read of this group, as a group of their own.
    """

    changes: tuple[Rule | None, ...] | None = None
    filters: Mapping[int, Wanted] = field(default_factory=dict)
    watched: Mapping[int, str] = field(default_factory=dict)
    derived: Group | None = None


class Default(BaseModel):
    """What a group says for those of its tags that do not say it themselves."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    deadband: Deadband | None = None
    max_silence_s: Silence | None = None

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> Default:
        """As it is written. What is wrong with it counts for nothing here; the group's own model says it."""
        try:
            return cls.model_validate(group)
        except ValidationError:
            return cls()


def group_rules(tags: Sequence[tuple[TagSettingsBase, Tag]], default: Default) -> GroupRules:
    """The rules of a group of these tags."""
    changes = tuple(_rule(settings, default) for settings, _ in tags)
    filters = {at: found for at, (settings, _) in enumerate(tags) if (found := _wanted(settings)) != Wanted()}
    return GroupRules(None if changes.count(None) == len(changes) else changes, filters)


def _rule(settings: TagSettingsBase, default: Default) -> Rule | None:
    deadband = default.deadband if settings.deadband is None else settings.deadband
    silence_s = default.max_silence_s if settings.max_silence_s is None else settings.max_silence_s
    if deadband is None and silence_s is None:
        return None
    share = percent(deadband) if isinstance(deadband, str) else 0.0
    absolute = float(deadband) if isinstance(deadband, int | float) else 0.0
    return Rule(absolute, share, SILENCE_S if silence_s is None else silence_s)


def _wanted(settings: TagSettingsBase) -> Wanted:
    return Wanted(settings.median_of or 0, settings.average_of or 0, settings.smooth_s or 0.0)


def misfits(settings: TagSettingsBase, value_type: ValueType) -> Iterator[tuple[str, str]]:
    """(key, sentence) of what only numbers can have."""
    if value_type in NOT_NUMBERS:
        if settings.deadband not in (None, 0):
            yield "deadband", f"a deadband is for numbers, not for type {value_type}; with 0 each change is reported"
        for key in FILTERS:
            if getattr(settings, key) is not None:
                yield key, f"{key} is for numbers, not for type {value_type}; leave it out"


def without_deadband(rule: Rule | None) -> Rule | None:
    """For a tag whose device leaves small changes out itself."""
    return None if rule is None else Rule(max_silence_s=rule.max_silence_s)
