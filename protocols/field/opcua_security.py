"""Which of a server's endpoints is used, with whose certificates, and as which user.

The server's endpoints are asked for on a connection of their own without security, as the standard wants it (OPC
10000-4, 5.5.4): what comes back proves nothing. Therefore the certificate in it counts only if a person approved its
fingerprint, and policy and mode are the configuration's, never what happens to be offered. Whether the server holds
the certificate's key shows when the channel opens: only then can it read what we send.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies
from cryptography import x509

from protocols.field.contract import DeviceRefused
from protocols.field.opcua_channel import count_requests, shut
from protocols.field.opcua_errors import Step, connect_error
from protocols.field.opcua_identity import Identity, IdentityError, identities
from protocols.field.opcua_settings import Settings
from protocols.field.opcua_trust import TrustError, approved, fingerprint, same

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

POLICY_PREFIX = "http://opcfoundation.org/UA/SecurityPolicy#"
_POLICIES: dict[str, type[security_policies.SecurityPolicy]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_MODES = {"Sign": ua.MessageSecurityMode.Sign, "SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt}


@dataclass(frozen=True, slots=True)
class User:
    """As whom the session is activated: by name and password, by certificate and key, or anonymous."""

    name: str | None = None
    password: str | None = None
    certificate: x509.Certificate | None = None
    key: PrivateKeyTypes | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection needs beside the address. `identities`: ours to try, in this order; none without security."""

    user: User
    identities: Sequence[Identity] = ()
    pinned: str = ""  # fingerprint of the approved server certificate
    pinned_on: str = ""


def access(settings: Settings, directory: Path | None, where: str) -> Access:
    """From the configuration and the files that it names. Blocks. Raises DeviceRefused."""
    user = _user(settings, where)
    if not settings.is_secure:
        return Access(user)
    if directory is None:
        raise DeviceRefused(f"{where}: there is no data_dir to keep its certificates in; set data_dir.")
    try:
        own = identities(directory, datetime.now(UTC))
        pin = approved(directory, settings.endpoint)
    except (IdentityError, TrustError) as error:
        raise DeviceRefused(f"{where}: {error}.") from error
    return Access(user, own, pin.sha256 if pin else "", pin.approved[:10] if pin else "")


def _user(settings: Settings, where: str) -> User:
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    path = settings.password_file or settings.user_certificate
    try:
        if settings.user_certificate is None or settings.user_key is None:
            return User(settings.username, settings.secret())
        given = settings.user_certificate.read_bytes()
        pem = given.lstrip().startswith(b"-----")
        certificate = x509.load_pem_x509_certificate(given) if pem else x509.load_der_x509_certificate(given)
        path = settings.user_key
        secret = path.read_bytes()
        load = load_pem_private_key if secret.lstrip().startswith(b"-----") else load_der_private_key
        return User(certificate=certificate, key=load(secret, None))
    except (OSError, ValueError, TypeError) as error:
        what = "password file" if settings.password_file else "user's certificate or key"
        raise DeviceRefused(
            f"{where}: the {what} {path} cannot be read ({error}); "
            "check that it exists, what it holds, and that the agent's user may read it."
        ) from error


async def endpoints(settings: Settings, where: str, count: Callable[[], None]) -> list[ua.EndpointDescription]:
    """What the server offers, asked for on a connection of its own. Raises DeviceAway or DeviceRefused."""
    client = Client(settings.endpoint, timeout=settings.timeout_s)
    count_requests(client, count)
    step = Step.SOCKET
    try:
        await client.connect_socket()
        step = Step.HELLO
        await client.send_hello()
        step = Step.CHANNEL
        await client.open_secure_channel()
        step = Step.ENDPOINTS
        found = await client.get_endpoints()
        await client.close_secure_channel()
        return list(found or ())
    except Exception as error:  # the library's edge: its decoder raises whatever a stranger's bytes lead to
        raise connect_error(step, error, where, settings.timeout_s, settings) from error
    finally:
        await shut(client)


def chosen(found: Sequence[ua.EndpointDescription], settings: Settings, where: str) -> bytes:
    """The certificate (DER) of the endpoint with the configured security. Raises DeviceRefused."""
    for each in found:
        if each.SecurityPolicyUri == POLICY_PREFIX + settings.security_policy and each.SecurityMode.name in (
            settings.mode,
            f"{settings.mode}_",  # asyncua's None_
        ):
            if not each.ServerCertificate:
                break
            return first_certificate(each.ServerCertificate)
    raise DeviceRefused(
        f"{where}: the server does not offer {settings.security_policy} with {settings.mode}; set security_policy and "
        f"security_mode to what it offers: {offered(found)}."
    )


def certificate_shown(found: Sequence[ua.EndpointDescription], settings: Settings) -> bytes | None:
    """The certificate (DER) with the configured policy, else with any; None where there is none."""
    wanted = POLICY_PREFIX + settings.security_policy
    shown = sorted(
        (each for each in found if each.ServerCertificate), key=lambda each: each.SecurityPolicyUri != wanted
    )
    return first_certificate(shown[0].ServerCertificate) if shown else None


def offered(found: Sequence[ua.EndpointDescription]) -> str:
    """Policies and modes, for a person."""
    names = {
        f"{(each.SecurityPolicyUri or '').removeprefix(POLICY_PREFIX)} {each.SecurityMode.name.rstrip('_')}"
        for each in found
    }
    return ", ".join(sorted(name.replace("None None", "None") for name in names)) or "nothing at all"


def first_certificate(chain: bytes) -> bytes:
    """The server's own certificate of a chain: one DER SEQUENCE after the other (OPC 10000-6, 6.2.3)."""
    if len(chain) < 4 or chain[0] != 0x30:
        return chain
    if chain[1] < 0x80:
        return chain[: 2 + chain[1]]
    width = chain[1] & 0x7F
    return chain[: 2 + width + int.from_bytes(chain[2 : 2 + width], "big")]


def check_pin(der: bytes, given: Access, where: str, device: str) -> None:
    """Raises DeviceRefused unless it is the certificate that a person approved."""
    shown = fingerprint(der)
    if not given.pinned:
        raise DeviceRefused(
            f"{where}: nobody has approved the server's certificate yet (SHA-256 {shown}); compare it with the one "
            f"that the server shows, then run: holdfast opcua trust {device}."
        )
    if not same(shown, given.pinned):
        raise DeviceRefused(
            f"{where}: THE SERVER'S CERTIFICATE HAS CHANGED since it was approved on {given.pinned_on}, so nothing is "
            f"read (SHA-256 is {shown}, was {given.pinned}); if it was renewed on purpose, run: holdfast opcua trust "
            f"{device}; if not, another computer may be answering in the server's place."
        )


def secure(client: Client, settings: Settings, der: bytes, identity: Identity, where: str) -> None:
    """Make the client speak with the configured security. Raises DeviceRefused."""
    try:
        server = x509.load_der_x509_certificate(der)
        policy = _POLICIES[settings.security_policy](
            server, identity.certificate, identity.key, _MODES[settings.mode], host_cert_chain=[]
        )
    except (ValueError, TypeError, AttributeError) as error:  # the last: a key that is not RSA
        raise DeviceRefused(
            f"{where}: the server's certificate cannot be used ({error}); let it make one with an RSA key."
        ) from error
    client.application_uri = identity.application_uri
    client.security_policy = policy  # type: ignore[assignment]  # asyncua annotates what it starts with
    client.uaclient.set_security(policy)
