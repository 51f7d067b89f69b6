"""A socket to the broker: name lookup, TCP, TLS. Only the reading of the certificate files holds up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from protocols.uplink.link import LinkAway, LinkError, LinkRefused
from protocols.uplink.mqtt_settings import BrokerSettings, TlsSettings

_NOT_YET_VALID = 9
"""X509_V_ERR_CERT_NOT_YET_VALID (OpenSSL, x509_vfy.h): mostly our own clock, at a gateway with a dead battery."""


def place(settings: BrokerSettings) -> str:
    """Where, as every sentence about this broker begins."""
    return f"MQTT broker {settings.host}:{settings.port}"


async def dial(settings: BrokerSettings) -> socket.socket:
    """A connected, non-blocking socket, an `ssl.SSLSocket` where TLS is wanted. The caller closes it.

    Raises LinkAway or LinkRefused. Has no deadline of its own: the caller gives one.
    """
    context = None if settings.tls is None else _context(settings, settings.tls)
    plain = await _tcp(settings)
    if context is None or settings.tls is None:
        return plain
    name = settings.tls.server_name or settings.host
    with contextlib.ExitStack() as undo:  # also when we are cancelled
        undo.callback(plain.close)
        wrapped = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        undo.callback(wrapped.close)
        try:
            await _handshake(wrapped)
        except OSError as error:
            raise tls_error(settings, error) from error
        undo.pop_all()
        return wrapped


async def _tcp(settings: BrokerSettings) -> socket.socket:
    """The first of the host's addresses that answers. Each has its share of the time, so a dead one costs no more."""
    loop = asyncio.get_running_loop()
    # Bytes are looked up as they are; for a text, Python loads its tables of all the world's letters.
    host = settings.host.encode() if settings.host.isascii() else settings.host
    try:
        found = await loop.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise LinkAway(
            f"{place(settings)}: the name {settings.host!r} cannot be resolved ({_why(error)}); "
            "check host, and this machine's name server"
        ) from error
    failure: OSError = OSError("it has no address")
    for family, kind, protocol, _, address in found:
        with contextlib.ExitStack() as undo:  # also when we are cancelled
            try:
                plain = undo.enter_context(socket.socket(family, kind, protocol))
                plain.setblocking(False)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else small packets wait for each other
                async with asyncio.timeout(settings.connect_timeout_s / len(found)):
                    await loop.sock_connect(plain, address)
            except OSError as error:  # TimeoutError is one
                failure = error
            else:
                undo.pop_all()
                return plain
    raise _tcp_error(settings, failure) from failure


def _tcp_error(settings: BrokerSettings, error: OSError) -> LinkAway:
    match error:
        case ConnectionRefusedError():
            what = "connection refused; check host and port, and that the broker runs"
        case TimeoutError():
            what = (
                f"no answer within {settings.connect_timeout_s:g} s; check host, and the network and firewalls between"
            )
        case _:
            what = f"cannot connect ({error.strerror or error}); check host, and this machine's network"
    return LinkAway(f"{place(settings)}: {what}")


def _context(settings: BrokerSettings, tls: TlsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise LinkRefused(f"{place(settings)}: ca_file {tls.ca_file}: {_why(error)}; it must be a PEM file") from error
    if tls.cert_file is not None:
        try:
            # A callable as password, because without one OpenSSL asks on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
        except (OSError, ValueError) as error:
            raise LinkRefused(
                f"{place(settings)}: cert_file {tls.cert_file} with key_file {tls.key_file}: {_why(error)}; "
                "both must be readable PEM files that belong together, the key without a pass phrase"
            ) from error
    return context


def _no_password() -> str:
    return ""


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)


async def _handshake(wrapped: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            wrapped.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(wrapped, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(wrapped, loop.add_writer, loop.remove_writer)
        else:
            return


async def _ready(
    wrapped: ssl.SSLSocket, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(wrapped.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(wrapped.fileno())


def tls_error(settings: BrokerSettings, error: OSError) -> LinkError:
    """What a failure of TLS means: of the handshake, or the alert after it, which is an answer to our certificate."""
    where = place(settings)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _NOT_YET_VALID:
            return LinkAway(f"{where}: its certificate is not valid yet; check this machine's clock")
        return LinkRefused(
            f"{where}: its certificate is not trusted ({error.verify_message}); check ca_file, and server_name where "
            "the certificate carries another name than host"
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        alert = (error.reason or "").rpartition("ALERT_")[2].replace("_", " ").lower()
        return LinkRefused(
            f"{where}: the broker ended TLS with the alert {alert!r}; check cert_file and key_file, and that the "
            "broker trusts whoever signed them"
        )
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return LinkRefused(f"{where}: this port does not speak TLS; check port, or leave out tls")
    return LinkAway(f"{where}: the connection ended during the TLS handshake ({_why(error)}); check port and tls")
