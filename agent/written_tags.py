"""Tags as they are written down, before any model has looked at them: where each stands, and whose name is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from protocols.program.settings import Path, Problem, Source


class Written(NamedTuple):
    """A tag's name with its path, and the device that it is of."""

    path: Path
    device: dict[str, Any]
    name: str

    @property
    def machine(self) -> str:
        """The machine of its device."""
        return str(self.device.get("machine"))


def groups_written(listed: Iterable[Any]) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """(path, device, group) of every poll group that is written down at all."""
    for at, device in enumerate(listed):
        groups = device.get("groups") if isinstance(device, dict) else None
        for group_at, group in enumerate(groups if isinstance(groups, list) else []):
            if isinstance(group, dict):
                yield ("devices", at, "groups", group_at), device, group


def names_written(listed: Iterable[Any]) -> Iterator[Written]:
    """The name of every tag, derived ones, too."""
    for path, device, group in groups_written(listed):
        for kind in ("tags", "derived"):
            tags = group.get(kind)
            for at, tag in enumerate(tags if isinstance(tags, list) else []):
                if isinstance(tag, dict) and isinstance(tag.get("name"), str):
                    yield Written((*path, kind, at, "name"), device, tag["name"])


def taken_names(source: Source, listed: Iterable[Any]) -> list[Problem]:
    """A tag's name is unique in its machine, because the machine's telemetry is a map by tag."""
    problems, owners = [], dict[tuple[str, str], str]()
    for one in names_written(listed):
        key = (one.machine, one.name)
        if key in owners:
            what = f"machine {key[0]} already has a tag {one.name} (of device {owners[key]}); choose another name"
            problems.append(source.problem(one.path, what))
        owners.setdefault(key, str(one.device.get("name")))
    return problems
