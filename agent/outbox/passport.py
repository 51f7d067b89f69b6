"""Who an outbox is and what it answers for, in a file beside its database: for when the database is lost.

The main record (rows.py, `Whole`) says both. Where it cannot be read any more, or the database is gone, nobody could
tell the original from a copy, nor whose numbers are destroyed, and the receiver would wait for them for ever. So the
passport says it a second time.

It proves something only beside a marker that it names, on the machine and disk that it names (identity.py): not in a
copy, and not in a backup that was put back. What those were copied from may be alive, and lets go of what it hears to
be dropped.

It is written before the COMMIT of the transaction that changes what it says. Where that comes to nothing it names an
epoch in which nothing was given, which harms nobody, and answers for one too few, for which the receiver then waits.
The marker takes its place after the COMMIT; the passport names it and the one before. A passport that cannot be written
is deleted, because the old one may answer for what is another's by now.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.outbox import durable
from agent.outbox.identity import Signs, differences, is_dated
from agent.outbox.rows import DAMAGED_MAX, Whole
from agent.outbox.tally import Count
from protocols.program.logs import get_logger

_SCHEMA = 1

_log = get_logger(part="outbox")


@dataclass(frozen=True, slots=True)
class Passport:
    """`id`, `signs`, `damaged`: as in the main record. `counted`: so many transactions and sessions, at least.

    `epochs`: in which numbers were given here and, for all that is known, nowhere else; present and former ones, the
    newest last.
    """

    id: str
    signs: Signs
    epochs: tuple[str, ...]
    damaged: tuple[str, ...]
    counted: Count

    def proves(self, marker: str | None, signs: Signs) -> bool:
        """Whether this is the original: beside this marker, on the machine and disk that have these signs."""
        if marker is None or not is_dated(marker) or marker not in self.signs.get("marker", ()):
            return False
        return not differences(self.signs, signs)

    @classmethod
    def of(cls, whole: Whole, former: Iterable[str], counted: Count) -> Passport:
        """`former`: epochs that are over, and in which numbers were given nowhere else."""
        epochs = dict.fromkeys(one for one in (*former, *whole.epochs.values()) if one not in whole.damaged)
        return cls(whole.id, whole.signs, tuple(epochs)[-DAMAGED_MAX:], whole.damaged, counted)

    def pack(self) -> bytes:
        """A line of JSON, and one with its CRC."""
        line = json.dumps({"schema": _SCHEMA, **asdict(self)}, separators=(",", ":")).encode()
        return b"%s\n%08x\n" % (line, zlib.crc32(line))


def unpack(packed: bytes) -> Passport | None:
    """None where it is not as it was written, or is of another version."""
    line, _, checksum = packed.partition(b"\n")
    if checksum != b"%08x\n" % zlib.crc32(line):
        return None
    try:
        record = json.loads(line)
        if record.pop("schema") != _SCHEMA:
            return None
        record |= {name: tuple(record[name]) for name in ("epochs", "damaged")}
        return Passport(**{**record, "counted": Count(*record["counted"])})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class PassportFile:
    """Not being able to write is told and no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: Passport | None = None
        self._fails = False

    def read(self) -> Passport | None:
        """None where there is none that can be read."""
        try:
            return unpack(self._path.read_bytes())
        except OSError:
            return None

    def keep(self, passport: Passport) -> None:
        """Durable when it returns; nothing to do where it says this already, but for the count."""
        said = replace(passport, counted=Count())
        if said == self._kept:
            return
        try:
            durable.replace(self._path, passport.pack())
        except OSError as error:
            self._kept = None
            self._tell(error)
            self._delete()
        else:
            self._kept, self._fails = said, False

    def _tell(self, error: OSError) -> None:
        if not self._fails:
            _log.warning(
                "the outbox could not write its passport; it tries again", path=str(self._path), error=error.strerror
            )
        self._fails = True

    def _delete(self) -> None:
        try:
            self._path.unlink()
            durable.sync(self._path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.error(
                "the outbox could not delete its old passport; delete it", path=str(self._path), error=error.strerror
            )
