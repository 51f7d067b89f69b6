"""What the configuration says of derived tags, and whether it can be: every name known, nothing made of itself.

A derived tag may be made of any tag of its machine, derived ones, too, whichever device and group they are of.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from agent.derived import Computed, Formula, Rate
from agent.expression import LENGTH_MAX, Expression
from agent.parts import free_name
from agent.rules import NOT_NUMBERS, Default, group_rules, misfits
from agent.written_tags import groups_written, names_written
from protocols.field.contract import Group, Tag, TagSettingsBase, ValueType
from protocols.program.settings import Path, Problem, Source

if TYPE_CHECKING:
    from agent.settings import Device

_NAME_CHARACTERS = 48


class DerivedSettings(TagSettingsBase):
    """A tag that is computed: by an expression, or as the rate of change of another."""

    expression: str | None = Field(
        None,
        max_length=LENGTH_MAX,
        description="Arithmetic over tags of the machine, as (inlet - outlet) * 4.19 * flow, or a condition, as "
        "level > 80 and not pump. Names with other signs than letters, digits and _ stand in braces: {Motor.Speed}.",
        examples=["(inlet - outlet) * 4.19 * flow"],
    )
    rate_of: str | None = Field(
        None, description="Instead of an expression: the tag whose change per second this is.", examples=["energy"]
    )

    @field_validator("expression")
    @classmethod
    def _is_expression(cls, expression: str | None) -> str | None:
        if expression is not None:
            Expression(expression)
        return expression

    @model_validator(mode="after")
    def _is_one(self) -> DerivedSettings:
        if (self.expression is None) == (self.rate_of is None):
            raise ValueError("a derived tag has either `expression` or `rate_of`; give one of them")
        return self


@dataclass(frozen=True, slots=True)
class _Entry:
    """A derived tag as it is written. `path`: its own; `group`: that which it stands in, as it is written."""

    path: Path
    machine: str
    device: str
    group: Mapping[str, Any]
    settings: DerivedSettings
    formula: Formula

    @property
    def where(self) -> Path:
        """What says of what it is made."""
        return (*self.path, "rate_of" if self.settings.expression is None else "expression")


def derive(source: Source, listed: Sequence[Any], devices: Sequence[Device]) -> list[Problem]:
    """Add to the rules of the devices' groups what is derived from them."""
    by_machine: dict[str, list[_Entry]] = {}
    for entry in _entries(listed):
        by_machine.setdefault(entry.machine, []).append(entry)
    if not by_machine:
        return []
    known: dict[str, list[str]] = {}
    for one in names_written(listed):
        known.setdefault(one.machine, []).append(one.name)
    problems = []
    for machine, entries in by_machine.items():
        mine = [device for device in devices if device.machine == machine]
        found = [_unknown(source, entry, known[machine]) for entry in entries]
        problems += [problem for of_entry in found for problem in of_entry] or _build(source, entries, mine)
    return problems


def _entries(listed: Sequence[Any]) -> Iterator[_Entry]:
    """Those that are well written; of the others the first stage has said what is wrong."""
    for path, device, group in groups_written(listed):
        derived = group.get("derived")
        for at, written in enumerate(derived if isinstance(derived, list) else []):
            try:
                settings = DerivedSettings.model_validate(written)
            except ValidationError:
                continue
            formula: Formula = Rate(str(settings.rate_of))
            if settings.expression is not None:
                formula = Computed(Expression(settings.expression))
            machine, name = str(device.get("machine")), str(device.get("name"))
            yield _Entry((*path, "derived", at), machine, name, group, settings, formula)


def _unknown(source: Source, entry: _Entry, known: Sequence[str]) -> list[Problem]:
    problems = []
    for name in entry.formula.names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else "it can be made of tags of the same machine only"
            what = f"there is no tag {name} in machine {entry.machine}; {hint}"
            problems.append(source.problem(entry.where, what))
    return problems


def _build(source: Source, entries: Sequence[_Entry], devices: Sequence[Device]) -> list[Problem]:
    """The derived tags of one machine, whose names are all known."""
    by_name = {entry.settings.name: entry for entry in entries}
    sorter = TopologicalSorter({name: set(entry.formula.names) & by_name.keys() for name, entry in by_name.items()})
    try:
        ordered = [by_name[name] for name in sorter.static_order()]
    except CycleError as error:
        circle: list[str] = error.args[1]
        what = f"it is made of itself: {' → '.join(reversed(circle))}; make one of them of something else"
        return [source.problem(by_name[circle[0]].where, what)]
    types = {tag.name: tag.value_type for device in devices for group in device.groups for tag in group.tags}
    problems: list[Problem] = []
    made: dict[tuple[str, str], list[tuple[_Entry, Tag]]] = {}
    for entry in ordered:
        settings = entry.settings
        try:
            kind = types[settings.name] = _value_type(entry.formula, types)
        except ValueError as error:
            problems.append(source.problem(entry.where, str(error)))
            continue
        problems += [source.problem((*entry.path, key), what) for key, what in misfits(settings, kind)]
        tag = Tag(settings.name, kind, settings.unit, entry.formula)
        made.setdefault((entry.device, str(entry.group.get("name", "main"))), []).append((entry, tag))
    for device in devices:
        _add(device, {group: tags for (name, group), tags in made.items() if name == device.name})
        _watch(device, {name for entry in entries for name in entry.formula.names})
    return problems


def _value_type(formula: Formula, types: Mapping[str, ValueType]) -> ValueType:
    """Raises ValueError with a sentence where it cannot be computed of tags of these types."""
    if isinstance(formula, Computed):
        return formula.expression.value_type(types)
    for name in formula.names:
        if types.get(name) in NOT_NUMBERS:
            raise ValueError(f"{name} is no number, and has no rate; choose another tag")
    return ValueType.FLOAT64


def _add(device: Device, made: Mapping[str, Sequence[tuple[_Entry, Tag]]]) -> None:
    """Their groups, and the rules of these."""
    taken = {group.name for group in device.groups}
    for group in device.groups:
        if tags := made.get(group.name):
            name = f"{group.name[:_NAME_CHARACTERS]}-derived"
            name = free_name(name, 2, taken) if name in taken else name
            of_tags = tuple(tag for _, tag in tags)
            derived = Group(device.name, name, group.period_s, of_tags, None, group.priority)
            settings = [(entry.settings, tag) for entry, tag in tags]
            device.rules[name] = group_rules(settings, Default.of(tags[0][0].group))
            device.rules[group.name] = replace(device.rules[group.name], derived=derived)


def _watch(device: Device, names: set[str]) -> None:
    for group in device.groups:
        watched = {at: tag.name for at, tag in enumerate(group.tags) if tag.name in names}
        device.rules[group.name] = replace(device.rules[group.name], watched=watched)
