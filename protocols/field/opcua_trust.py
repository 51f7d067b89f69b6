"""Which server certificates a person approved: trust on first use, and never a second one by itself.

`trusted.json` in the directory that all OPC UA devices of a gateway share:

    {"opc.tcp://10.0.0.7:4840": {"sha256": "AB:CD:…", "subject": "CN=press", "approved": "2026-03-01T12:00:00+00:00"}}

An approval belongs to host and port, whatever the path behind them and whoever is configured to read it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

FILE = "trusted.json"


@dataclass(frozen=True, slots=True)
class Approved:
    """The certificate of one server: its fingerprint, whose it says it is, and when it was approved (ISO 8601)."""

    sha256: str
    subject: str
    approved: str


class TrustError(Exception):
    """The approvals cannot be used; half a sentence that says why and what to do."""


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` writes it."""
    return hashlib.sha256(der).digest().hex(":").upper()


def same(one: str, other: str) -> bool:
    """Whether two fingerprints are the same, however they are written."""
    return _bare(one) == _bare(other)


def _bare(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter not in ": -\t")


def server_key(endpoint: str) -> str:
    """What an endpoint's approval is filed under."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def approved(directory: Path, endpoint: str) -> Approved | None:
    """What was approved for this endpoint. Raises TrustError."""
    return _read(directory).get(server_key(endpoint))


def approve(directory: Path, endpoint: str, der: bytes, subject: str, now: datetime) -> Approved:
    """From now on this certificate, and no other, is the endpoint's. Raises TrustError."""
    entry = Approved(fingerprint(der), subject, now.isoformat(timespec="seconds"))
    entries = {**_read(directory), server_key(endpoint): entry}
    text = json.dumps({key: asdict(one) for key, one in sorted(entries.items())}, indent=2, ensure_ascii=False)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keep(directory / FILE, text.encode() + b"\n")
    except OSError as error:
        raise TrustError(
            f"{directory / FILE} cannot be written ({error.strerror or error}); run it as the agent's user"
        ) from error
    return entry


def _read(directory: Path) -> dict[str, Approved]:
    path = directory / FILE
    try:
        return {key: Approved(**entry) for key, entry in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TrustError(
            f"{path} cannot be read ({error.strerror or error}); check that the agent's user may read it"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise TrustError(f"{path} is damaged ({error}); remove it and approve the servers again") from error


def keep(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, so that it outlasts a power cut, for its owner alone. What root writes belongs
    to whoever owns the data directory above, which is the agent's user. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    if os.geteuid() == 0:
        above = path.parent.parent.stat()
        for made in (path.parent, fresh):
            os.chown(made, above.st_uid, above.st_gid)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
