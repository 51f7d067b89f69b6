"""Settings from a YAML file, the environment and flags, checked by a pydantic model; all problems at once.

    loaded = load("agent.yaml", AgentSettings, overrides=flags(["broker.host=10.0.0.1"]),
                  environ=os.environ, env_prefix="HOLDFAST_")
    loaded.settings                                    # the model's instance
    loaded.problem(("devices", 2), "...")              # for checks of the caller's own: knows file, line and column

Precedence: flags, environment, file, the model's defaults. How the file is read stands in `document`, what a word
means in `scalar`, how overrides are written in `overrides`, the sentences in `explain`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from protocols.program.document import SIZE_MAX_BYTES, Document, position, too_large
from protocols.program.document import parse as parse
from protocols.program.overrides import Merged, from_environment, from_flags, merge
from protocols.program.overrides import flags as flags
from protocols.program.problem import Path as Path
from protocols.program.problem import Problem as Problem
from protocols.program.problem import SettingsError as SettingsError
from protocols.program.problem import dotted

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Source:
    """Plain values and where each came from: the file's document with the overrides laid over it."""

    document: Document
    merged: Merged

    @property
    def value(self) -> Any:
        """The whole of it as plain values, before any model."""
        return self.merged.value

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """A problem about the value at `path`, or its key, or the nearest thing around it that has a place."""
        return self._at(path, path, message, at_key)

    def explain(
        self, error: ValidationError, model: type[BaseModel], path: Path = (), beside: Sequence[str] = ()
    ) -> list[Problem]:
        """The problems of an error raised by validating the part at `path` with `model`, each at its place.

        `beside`: keys there that another model reads. What the document itself already refused is left out.
        """
        from protocols.program.explain import explain  # only where something is wrong

        findings = explain(error, model, self.value, path, beside)
        return [self._at(f.place, f.path, f.message, f.at_key) for f in findings if not self._is_refused(f.path)]

    def _is_refused(self, path: Path) -> bool:
        """Whether this, or what it is in, was refused already and no override has taken its place."""
        upwards = [path[:length] for length in range(len(path) + 1)]
        return not self.document.refused.isdisjoint(upwards) and self.merged.origins.keys().isdisjoint(upwards)

    def _at(self, place: Path, path: Path, message: str, at_key: bool) -> Problem:
        """The problem, at the nearest place from `place` upwards that the file or an override knows."""
        for length in range(len(place), -1, -1):
            here = place[:length]
            positions = self.document.keys if at_key and length == len(place) else self.document.values
            if here in self.merged.origins:
                return Problem(", ".join(self.merged.origins[here]), None, None, dotted(path), message)
            if here in positions:
                line, column = positions[here]
                return Problem(self.document.filename, line, column, dotted(path), message)
        return Problem(self.document.filename, None, None, dotted(path), message)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Model]):
    """Checked settings, and where each came from, so that later checks can point at the place."""

    settings: Model
    source: Source

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """See Source.problem."""
        return self.source.problem(path, message, at_key=at_key)

    def explain(self, error: ValidationError, model: type[BaseModel], path: Path = ()) -> list[Problem]:
        """See Source.explain."""
        return self.source.explain(error, model, path)


def load(
    path: str | pathlib.Path,
    model: type[Model],
    *,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str],
    env_prefix: str,
    ignore: Collection[str] = (),
    also: Callable[[Source], list[Problem]] | None = None,
) -> Loaded[Model]:
    """Read, override and check. Raises SettingsError with every problem there is.

    `overrides`: dotted path → value, from flags. `ignore`: variables with the prefix that are no settings; `*` at will.
    `also`: checks of the caller's own on the plain values, made even where the model finds problems.
    """
    source, problems = _source(path, overrides or {}, environ, env_prefix, ignore)
    if also is not None:
        problems = [*problems, *also(source)]
    try:
        settings = model.model_validate(source.value)
    except ValidationError as error:
        raise SettingsError([*problems, *source.explain(error, model)]) from error
    if problems:
        raise SettingsError(problems)
    return Loaded(settings, source)


def _source(
    path: str | pathlib.Path,
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    prefix: str,
    ignore: Collection[str],
) -> tuple[Source, list[Problem]]:
    document = parse(read(path), str(path))
    variables, wrong_variables = from_environment(environ, prefix, ignore)
    given, wrong_flags = from_flags(overrides)
    if not isinstance(document.value, dict):
        what = "holds no settings" if document.value is None else "does not begin with a key"
        line, column = document.values.get((), (1, 1))
        problem = Problem(document.filename, line, column, "", f"the file {what}; write `key: value` lines")
        raise SettingsError([*document.problems, problem, *wrong_variables, *wrong_flags])
    merged = merge(document.value, [*variables, *given])
    return Source(document, merged), [*document.problems, *wrong_variables, *wrong_flags, *merged.problems]


def read(path: str | pathlib.Path) -> str:
    """The text of a settings file, UTF-8 with or without a byte order mark. Raises SettingsError."""

    def wrong(message: str, line: int | None = None, column: int | None = None) -> SettingsError:
        return SettingsError([Problem(str(path), line, column, "", message)])

    try:
        with pathlib.Path(path).open("rb") as file:
            data = file.read(SIZE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise wrong("there is no such file; check the path") from error
    except IsADirectoryError as error:
        raise wrong("this is a directory; name the file in it") from error
    except PermissionError as error:
        raise wrong("the file may not be read; give this user the right to read it") from error
    except (OSError, ValueError) as error:
        raise wrong(f"the file cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from error
    if len(data) > SIZE_MAX_BYTES:
        raise SettingsError([too_large(str(path))])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = position(data[: error.start].decode("utf-8-sig"), len(data))
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8; save the file as UTF-8"
        raise wrong(message, line, column) from error
