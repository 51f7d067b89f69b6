"""The gateway's own certificate towards OPC UA servers (OPC 10000-6, 6.2.2): made once, kept, renewed before it ends.

    client.pem             private key and certificate, mode 0600; all OPC UA devices of a gateway share it
    client-previous.pem    the one before, after a renewal, as long as it is valid
    client.der             the certificate alone, to be given to the servers' administrators

A server has to be told by hand to trust a certificate. A renewal must therefore not lock the gateway out: a server
that rejects the new certificate is shown the previous one, until that ends RENEW_BEFORE later.

The files belong to whoever owns the directory, also when root makes them. cryptography, a heavy import, is needed by
whoever calls in here only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from protocols.field.opcua_trust import fingerprint, keep
from protocols.program.logs import get_logger

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

NEWEST, PREVIOUS, PUBLIC = "client.pem", "client-previous.pem", "client.der"
VALID = timedelta(days=5 * 365)
RENEW_BEFORE = timedelta(days=90)
CLOCK_SLACK = timedelta(days=1)  # a server whose clock is late must not find it "not yet valid"
KEY_BITS = 2048  # what every policy takes, and what small PLCs can compute

_log = get_logger(part="opcua")


class IdentityError(Exception):
    """Our own certificate cannot be used; half a sentence that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate of ours with its key, and the file for the servers' administrators."""

    certificate: x509.Certificate
    key: RSAPrivateKey
    public: Path

    @property
    def application_uri(self) -> str:
        """The URI in the certificate: the client must give the same one (OPC 10000-4, 6.1.3)."""
        from cryptography import x509

        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]

    @property
    def fingerprint(self) -> str:
        return fingerprint(_der(self.certificate))


def identities(directory: Path, now: datetime) -> list[Identity]:
    """Ours, the newest first; made and renewed as needed. Blocks for some 0.1 s. Raises IdentityError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(directory):
            newest = _newest(directory, now)
            previous = _load(directory, PREVIOUS) if (directory / PREVIOUS).exists() else None
    except OSError as error:
        raise IdentityError(
            f"the client certificate in {directory} cannot be kept or read ({error.strerror or error}); "
            "check that the agent's user owns that directory"
        ) from error
    return [newest, previous] if previous is not None and _ends(previous) > now else [newest]


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time."""
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _newest(directory: Path, now: datetime) -> Identity:
    path = directory / NEWEST
    if not path.exists():
        made = _make(directory, now)
        _log.info("made a client certificate for OPC UA", file=str(made.public), sha256=made.fingerprint)
        return made
    found = _load(directory, NEWEST)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        _log.warning("the OPC UA client key was readable by others; it is not any more", file=str(path))
    if _ends(found) - RENEW_BEFORE > now:
        return found
    path.replace(directory / PREVIOUS)
    made = _make(directory, now)
    _log.warning(
        "renewed the OPC UA client certificate; every server must trust the new one before the old one ends",
        file=str(made.public),
        sha256=made.fingerprint,
        old_ends=_ends(found).date().isoformat(),
    )
    return made


def _ends(identity: Identity) -> datetime:
    return identity.certificate.not_valid_after_utc


def _load(directory: Path, name: str) -> Identity:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = (directory / name).read_bytes()
    try:
        key, certificate = load_pem_private_key(text, None), x509.load_pem_x509_certificate(text)
        if not isinstance(key, RSAPrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("key and certificate do not belong together")
        identity = Identity(certificate, key, directory / PUBLIC)
        _ = identity.application_uri
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound) as error:
        raise IdentityError(
            f"the client certificate {directory / name} is damaged ({error}); put it back from a backup, or remove it: "
            "then a new one is made, which every server must be told to trust"
        ) from error
    return identity


def _make(directory: Path, now: datetime) -> Identity:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    certificate = _certificate(key, now)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    keep(directory / PUBLIC, _der(certificate))
    keep(directory / NEWEST, secret + certificate.public_bytes(pem))
    return Identity(certificate, key, directory / PUBLIC)


def _certificate(key: RSAPrivateKey, now: datetime) -> x509.Certificate:
    """Self-signed, with what OPC 10000-6, 6.2.2 asks of an application's certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    host = socket.gethostname()
    label = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-.") else "-" for letter in host)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holdfast@{label}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_cert_sign=True,  # because it is signed by itself
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    names = [x509.UniformResourceIdentifier(f"urn:{label}:holdfast"), x509.DNSName(label)]
    now = now.astimezone(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)
