"""A quick start."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """While modules and settings are loaded, do without the garbage collector, and let it leave them alone for good.

    Nearly all of it stays until the end. Looking through it again and again takes a tenth of the start, and later a
    pause of the event loop at each full collection.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
