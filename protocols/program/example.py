"""Writing an example configuration for a person to complete."""

from __future__ import annotations

import os
from pathlib import Path

from protocols.program.console import UNAVAILABLE, USAGE, Failure

MODE = 0o600  # it may come to hold a password


def write_example(path: Path, text: str, *, force: bool, usual_name: str) -> None:
    """Never half a file, and never one that others could read meanwhile. Raises Failure; its cause is the OSError.

    `force`: take the place of a file that is there. `usual_name`: what to propose to who names a directory.
    """
    if path.is_dir():
        raise Failure(f"{path} is a directory; name the file in it, as in {path / usual_name}", USAGE)
    target = path.with_name(path.name + ".new") if force else path
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_TRUNC if force else os.O_EXCL)
        with os.fdopen(os.open(target, flags, MODE), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(text)
        if force:
            target.replace(path)
    except FileExistsError as error:
        why = f"{path} exists already and was left alone; choose another path, or add --force"
        raise Failure(why, USAGE) from error
    except OSError as error:
        why = f"{path} cannot be written ({error.strerror}); check the path and your rights"
        raise Failure(why, UNAVAILABLE) from error
