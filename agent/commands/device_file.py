"""Changing the configuration's file: the new text is checked as the agent would, then takes the old one's place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import settings_path
from agent.toolbox.editing import CannotEdit, Edit, Listing, applied
from protocols.program.console import CONFIGURATION, TEMPORARY, UNAVAILABLE, USAGE, Failure

if TYPE_CHECKING:
    from agent.settings import Configuration

TAKE_OVER = "systemctl reload holdfast"


class ConfigurationFile:
    """The file, as it was when it was opened. Nothing is written before `save`."""

    def __init__(self, config: Path | None) -> None:
        """Raises SettingsError where the file cannot be used as it is."""
        from agent import settings

        self.shown = settings_path(config)
        self._path = self.shown.resolve()
        self.configuration: Configuration = settings.read(self.shown)
        self._before = self._path.read_bytes()
        self._has_mark = self._before.startswith(b"\xef\xbb\xbf")
        self.text = self._before.decode("utf-8-sig")

    def listing(self, *path: str | int) -> Listing:
        """One of its lists. Raises Failure."""
        try:
            return Listing(self.text, path)
        except CannotEdit as error:
            raise Failure(f"{self.shown}: {error}", CONFIGURATION) from None

    def device_at(self, name: str) -> int:
        """The device's place in the list `devices`. Raises Failure where there is none of this name."""
        names = [device.name for device in self.configuration.settings.devices]
        if name not in names:
            raise Failure(f"there is no device {name} in {self.shown}; there are {', '.join(names[:12])}", USAGE)
        return names.index(name)

    def save(self, edits: Sequence[Edit]) -> None:
        """Make the edits, if the result is valid. Raises SettingsError, or Failure; the file is then as it was."""
        from agent import settings
        from protocols.program.problem import SettingsError

        text = applied(self.text, edits)
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            self._write(beside, text)
            try:
                settings.read(beside)
            except SettingsError as error:
                told = [replace(one, file=str(self.shown), line=None, column=None) for one in error.problems]
                raise SettingsError(told) from None
            if self._path.read_bytes() != self._before:
                raise Failure(f"{self.shown} was changed meanwhile by somebody else; try again", TEMPORARY)
            beside.replace(self._path)
            self._settle()
        except OSError as error:
            why = f"{self.shown} cannot be changed ({error.strerror}); check the rights of this user"
            raise Failure(why, UNAVAILABLE) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()

    def _write(self, beside: Path, text: str) -> None:
        """With the rights and the owner of the original, safely on disk."""
        original = self._path.stat()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            file.write((b"\xef\xbb\xbf" if self._has_mark else b"") + text.encode())
            if (original.st_uid, original.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), original.st_uid, original.st_gid)
            os.fchmod(file.fileno(), original.st_mode & 0o7777)
            file.flush()
            os.fsync(file.fileno())

    def _settle(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
