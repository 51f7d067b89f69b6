"""When a certificate ends, read from its PEM file with nothing but the standard library.

The libraries that know X.509 in full cost 16 MB of memory and 0.1 s of the start, for one date. The way to that date is
short and fixed (RFC 5280, 4.1; DER as in X.690): Certificate → TBSCertificate → past [version], serialNumber, signature
and issuer → Validity → notAfter.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

from protocols.program.logs import get_logger
from protocols.uplink.mqtt_settings import TlsSettings

LOOK_S = 3600.0
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_FORMS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}


_log = get_logger(part="certificate")


class CertificateError(ValueError):
    """Not a certificate; the message says why in one sentence."""


def days_left(path: Path, now_s: float) -> int:
    """Whole days until the file's first certificate ends, negative afterwards. `now_s`: seconds since 1970.

    Raises CertificateError, or OSError where the file cannot be read.
    """
    der = first(path)
    try:
        end = _not_after(der)
    except (ValueError, IndexError) as error:
        raise CertificateError(f"{path} holds no readable certificate ({error})") from None
    return int((end.timestamp() - now_s) // 86_400)


def first(path: Path) -> bytes:
    """The file's first certificate, as DER. Raises CertificateError, or OSError where the file cannot be read."""
    found = _PEM.search(path.read_text(encoding="ascii", errors="replace"))
    if found is None:
        raise CertificateError(f"{path} holds no PEM certificate")
    try:
        return ssl.PEM_cert_to_DER_cert(found[0])
    except ValueError as error:
        raise CertificateError(f"{path} holds no readable certificate ({error})") from None


class Certificate:
    """Our own, towards the broker, if there is one; looked at again every hour, because it may be renewed."""

    def __init__(self, tls: TlsSettings | None) -> None:
        self._path = None if tls is None else tls.cert_file
        self._looked_s = 0.0
        self._days: int | None = None

    def days_left(self, now_s: float) -> int | None:
        """Of `days_left`; None where there is none, or none that can be read: then the connection says why."""
        if self._path is not None and not 0 <= now_s - self._looked_s < LOOK_S:
            self._looked_s = now_s
            try:
                self._days = days_left(self._path, now_s)
            except (CertificateError, OSError) as error:
                _log.debug("the certificate's end cannot be told", reason=str(error))
                self._days = None
        return self._days


def _not_after(der: bytes) -> datetime:
    certificate = _inside(der, 0, _SEQUENCE)
    at = _inside(der, certificate, _SEQUENCE)
    if der[at] == _VERSION:
        at = _behind(der, at)
    for _ in ("serialNumber", "signature", "issuer"):
        at = _behind(der, at)
    at = _behind(der, _inside(der, at, _SEQUENCE))  # past notBefore
    begin, end = _value(der, at)
    if der[at] not in _FORMS:
        raise ValueError(f"an end of type 0x{der[at]:02x}")
    return datetime.strptime(der[begin:end].decode("ascii"), _FORMS[der[at]]).replace(tzinfo=UTC)


def _value(der: bytes, at: int) -> tuple[int, int]:
    """Where the value of the element at this place begins and ends."""
    length = der[at + 1]
    if length < 0x80:
        return at + 2, at + 2 + length
    begin = at + 2 + (length & 0x7F)
    return begin, begin + int.from_bytes(der[at + 2 : begin], "big")


def _inside(der: bytes, at: int, tag: int) -> int:
    if der[at] != tag:
        raise ValueError(f"an element of type 0x{der[at]:02x} in the place of 0x{tag:02x}")
    return _value(der, at)[0]


def _behind(der: bytes, at: int) -> int:
    return _value(der, at)[1]
