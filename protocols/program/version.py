"""The version of the programs."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def program_version() -> str:
    """As installed; a checkout that was never installed has none and says so."""
    try:
        return version("holdfast")
    except PackageNotFoundError:
        return "0+checkout"
