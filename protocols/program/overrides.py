"""Single settings given by the environment or by flags, laid over what the file says. Pure.

    HOLDFAST_BROKER__HOST=10.0.0.1          variable: prefix, then the path in capitals, `__` between levels
    --set broker.host=10.0.0.1              flag: the path as it is written in messages, `devices[0].host` in lists

A value is read as an unquoted word of YAML; put quotes inside for a text that looks like something else: '"0123"'.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from protocols.program.problem import Path, Problem, SettingsError, dotted, is_secret
from protocols.program.scalar import Ambiguous, Scalar, resolve

_FLAG_PART = re.compile(r"(?:^|\.)([^.\[\]]+)|\[([0-9]+)\]")


@dataclass(frozen=True, slots=True)
class Override:
    """One setting from outside the file. `name` is what people call it; `exact`: the case of the path counts."""

    name: str
    path: tuple[str, ...]
    value: Scalar
    exact: bool


@dataclass(frozen=True, slots=True)
class Merged:
    """The file's value with the overrides laid over it.

    `origins`: path → who set it, for every value set and every mapping that had to be made for one.
    """

    value: Any
    origins: Mapping[Path, tuple[str, ...]]
    problems: tuple[Problem, ...]


class _Misfit(Exception):
    """The path leads nowhere in this file; the message says why."""


def flags(assignments: Sequence[str]) -> dict[str, str]:
    """`["broker.host=x"]` as `{"broker.host": "x"}`, the last one winning. Raises SettingsError without a `=`."""
    wrong = [text for text in assignments if not text.partition("=")[1]]
    if wrong:
        raise SettingsError(Problem(f"--set {text}", None, None, "", "write it as path=value") for text in wrong)
    return {path: value for path, _, value in (text.partition("=") for text in assignments)}


def from_environment(
    environ: Mapping[str, str], prefix: str, ignore: Collection[str] = ()
) -> tuple[list[Override], list[Problem]]:
    """The overrides among the variables that begin with `prefix`; `ignore` lists other names, `*` at will."""
    found: list[Override] = []
    problems: list[Problem] = []
    for name in sorted(environ):
        if not name.startswith(prefix) or any(fnmatchcase(name, pattern) for pattern in ignore):
            continue
        path = tuple(name[len(prefix) :].lower().split("__"))
        if not all(path):
            problems.append(Problem(name, None, None, "", f"write it as {prefix}KEY, or {prefix}KEY__KEY for a level"))
            continue
        _add(found, problems, name, path, environ[name], exact=False)
    return found, problems


def from_flags(assignments: Mapping[str, str]) -> tuple[list[Override], list[Problem]]:
    """The overrides that flags ask for: dotted path → value."""
    found: list[Override] = []
    problems: list[Problem] = []
    for text, value in assignments.items():
        name = f"--set {text}"
        parts = list(_FLAG_PART.finditer(text))
        if not parts or "".join(part.group() for part in parts) != text:
            problems.append(Problem(name, None, None, "", "write the path as broker.host or devices[0].host"))
            continue
        _add(found, problems, name, tuple(part.group(1) or part.group(2) for part in parts), value, exact=True)
    return found, problems


def merge(value: Any, overrides: Sequence[Override]) -> Merged:
    """`value` with the overrides laid over it one after another, so that the last one wins.

    `value` itself stays as it is; what no override reaches is shared with it, for it can be large.
    """
    merged = copy(value)
    origins: dict[Path, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for override in overrides:
        try:
            _lay(merged, override, origins)
        except _Misfit as error:
            problems.append(Problem(override.name, None, None, dotted(override.path), str(error)))
    return Merged(merged, origins, tuple(problems))


def _add(
    found: list[Override], problems: list[Problem], name: str, path: tuple[str, ...], text: str, *, exact: bool
) -> None:
    try:
        found.append(Override(name, path, _scalar(text), exact))
    except Ambiguous as error:
        message = f"{Ambiguous() if is_secret(path) else error}; quotes belong inside the value, as in '\"no\"'"
        problems.append(Problem(name, None, None, dotted(path), message))


def _scalar(text: str) -> Scalar:
    stripped = text.strip()
    if len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return stripped[1:-1]
    return resolve(stripped)


def _lay(root: Any, override: Override, origins: dict[Path, tuple[str, ...]]) -> None:
    """Set one value; makes the mappings on the way to it. Raises _Misfit."""
    target, path = root, Path()
    for part in override.path[:-1]:
        step = _step(target, part, path, override.exact)
        path = (*path, step)
        if isinstance(target, dict) and target.get(step) is None:
            target[step] = {}
            origins[path] = ()
        if path in origins:
            origins[path] = (*origins[path], override.name)
        target[step] = copy(target[step])
        target = target[step]
    step = _step(target, override.path[-1], path, override.exact)
    path = (*path, step)
    target[step] = override.value
    for beneath in [other for other in origins if other[: len(path)] == path]:
        del origins[beneath]
    origins[path] = (override.name,)


def _step(target: Any, part: str, path: Path, exact: bool) -> str | int:
    if isinstance(target, list):
        if not part.isascii() or not part.isdigit() or int(part) >= len(target):
            raise _Misfit(f"{dotted(path)} is a list of {len(target)}; use an index from 0 below that")
        return int(part)
    if not isinstance(target, dict):
        raise _Misfit(f"{dotted(path) or 'the file'} holds a single value, not keys; there is nothing to set inside")
    if part in target or exact:
        return part
    return next((key for key in target if key.lower().replace("-", "_") == part), part)
