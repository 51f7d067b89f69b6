"""Where the agent's feed is: a Unix socket in its data_dir, for whoever may enter there. Nothing of it is a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "live.sock"
PATH_BYTES_MAX = 107
"""What an address of a Unix socket can hold, unix(7)."""


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for the path that fits an address, while this lasts; a long one goes by its directory's descriptor."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
