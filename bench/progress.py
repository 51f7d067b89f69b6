"""Lines about what goes on, to stderr."""

from __future__ import annotations

import sys
import time

_BEGUN_S = time.monotonic()


def progress(what: str) -> None:
    """One line, with the seconds since the beginning."""
    print(f"[{time.monotonic() - _BEGUN_S:6.1f} s] {what}", file=sys.stderr, flush=True)
