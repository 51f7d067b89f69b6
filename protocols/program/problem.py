"""What is wrong with the settings, and where: one problem, and the error that carries all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

Path = tuple[str | int, ...]
"""Where a value stands among the settings: keys, and indexes from 0 in lists."""


def dotted(path: Path) -> str:
    """The path as people read it and as flags are written: `devices[0].host`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


_SECRET = re.compile(r"passw|passphrase|secret|token", re.IGNORECASE)


def is_secret(path: Path) -> bool:
    """Whether what stands there should be kept off screens and out of logs, going by the names on the way to it."""
    return any(isinstance(part, str) and _names_secret(part) for part in path)


@lru_cache(maxsize=256)  # the same few keys in each of thousands of tags
def _names_secret(key: str) -> bool:
    return _SECRET.search(key) is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. Its text is `file:line:column: path: what and what to do`.

    `file` names the environment variable or the flag instead, where the value came from there. `line` and `column`
    count from 1, columns in characters; None where there are none. `path` is dotted; empty for the whole file.
    """

    file: str
    line: int | None
    column: int | None
    path: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return ": ".join(part for part in (where, self.path, self.message) if part)

    @property
    def order(self) -> tuple[bool, str, int, int]:
        """Sorts problems as they stand in the file; those of variables and flags come after it."""
        return self.line is None, self.file, self.line or 0, self.column or 0


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds every problem found, in the file's order; `str` a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(dict.fromkeys(problems), key=lambda p: p.order))
        super().__init__("\n".join(str(problem) for problem in self.problems))
