"""The OPC UA driver's secured connections, against asyncua's own server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua.common.connection import SecureConnection
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from protocols.field import opcua, opcua_identity, opcua_session, opcua_trust
from protocols.field.contract import DeviceAway, DeviceRefused, Group, ValueType
from protocols.field.opcua_identity import NEWEST, PREVIOUS, PUBLIC, identities
from protocols.field.opcua_trust import approve, fingerprint
from tests.support.cli import Prepared, prepared
from tests.support.opcua_server import OpcuaServer, opcua_server, self_signed

pytestmark = pytest.mark.timeout(40)  # no measurement: a test that waits in vain fails


@pytest.fixture
async def server() -> AsyncIterator[OpcuaServer]:
    async with opcua_server() as running:
        yield running


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    return tmp_path / "data" / "opcua"


TAG = opcua.TagSettings(name="temperature", node="nsu=urn:plant:press;s=Temperature", type=ValueType.FLOAT64)
GROUP = Group("press", "fast", 0.05, (opcua.tag(TAG),), opcua.GroupSettings())


def driver(url: str, pki: Path | None, **more: object) -> opcua.OpcuaDriver:
    given = {"url": url, "security_policy": "Basic256Sha256", "timeout_s": 5.0, **more}
    device = opcua.driver("plc-1", opcua.Settings.model_validate(given), [GROUP])
    if pki is not None:
        device.keep_in(pki)
    return device


def trust(pki: Path, server: OpcuaServer) -> None:
    approve(pki, server.url, server.certificate, "CN=press", datetime.now(UTC))


async def temperature(plc: opcua.OpcuaDriver) -> object:
    """What the tag is now, read over a connection of its own."""
    await plc.connect()
    try:
        while True:
            for scan in await plc.read(GROUP):
                return scan.values[-1]
            await asyncio.sleep(0.01)
    finally:
        await plc.close()


async def refused(plc: opcua.OpcuaDriver, says: str) -> str:
    """Connecting fails for good, with one sentence, and nothing can be read."""
    with pytest.raises(DeviceRefused) as caught:
        await plc.connect()
    text = str(caught.value)
    assert says in text
    assert text.startswith("plc-1 (opcua opc.tcp://") and text.endswith(".") and "\n" not in text
    with pytest.raises(DeviceAway, match="not connected"):
        await plc.read(GROUP)
    return text


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("Basic256Sha256", "Sign"),
        ("Basic256Sha256", None),
        ("Aes128_Sha256_RsaOaep", "SignAndEncrypt"),
        ("Aes256_Sha256_RsaPss", "SignAndEncrypt"),
    ],
)
async def test_reads_with_every_policy(server: OpcuaServer, pki: Path, policy: str, mode: str | None) -> None:
    trust(pki, server)
    plc = driver(server.url, pki, security_policy=policy, security_mode=mode)
    await plc.connect()
    assert server._listener is not None
    [client] = server._listener.clients
    assert client.processor is not None
    used = client.processor._connection.security_policy
    assert used.URI.endswith(f"#{policy}")
    assert used.Mode.name == (mode or "SignAndEncrypt")
    await plc.close()
    assert await temperature(plc) == 71.5


async def test_what_is_sent_encrypted_cannot_be_read_on_the_line(
    server: OpcuaServer, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(pki, server)
    heard: dict[str, bytes] = {}

    async def spied(mode: str) -> bytes:
        """Everything on the line while the tag Recipe is read."""
        taken = bytearray()

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", server.port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    taken.extend(data)
                    sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

        async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as line:
            url = f"opc.tcp://127.0.0.1:{line.sockets[0].getsockname()[1]}/press"
            approve(pki, url, server.certificate, "CN=press", datetime.now(UTC))
            tag = opcua.TagSettings(name="recipe", node="nsu=urn:plant:press;s=Recipe", type=ValueType.STRING)
            of = Group("press", "slow", 0.05, (opcua.tag(tag),), opcua.GroupSettings(mode="poll"))
            settings = {"url": url, "security_policy": "Basic256Sha256", "security_mode": mode}
            plc = opcua.driver("plc-1", opcua.Settings.model_validate(settings), [of])
            plc.keep_in(pki)
            await plc.connect()
            assert {scan.values[0] for scan in await plc.read(of)} == {"Nougat"}
            await plc.close()
        return bytes(taken)

    for mode in ("Sign", "SignAndEncrypt"):
        heard[mode] = await spied(mode)
    assert b"Nougat" in heard["Sign"]
    assert b"Nougat" not in heard["SignAndEncrypt"]


async def test_a_server_that_nobody_approved_is_not_read(server: OpcuaServer, pki: Path) -> None:
    said = await refused(driver(server.url, pki), "nobody has approved the server's certificate yet")
    assert f"SHA-256 {fingerprint(server.certificate)}" in said
    assert said.endswith("run: holdfast opcua trust plc-1.")
    assert server.sessions == 0


async def test_a_changed_certificate_is_refused_until_it_is_approved(server: OpcuaServer, pki: Path) -> None:
    trust(pki, server)
    old = server.certificate
    plc = driver(server.url, pki)
    assert await temperature(plc) == 71.5
    server.renew_certificate()
    await server.cut()
    await server.restore()
    said = await refused(plc, "THE SERVER'S CERTIFICATE HAS CHANGED")
    assert fingerprint(old) in said and fingerprint(server.certificate) in said
    assert "if it was renewed on purpose, run: holdfast opcua trust plc-1;" in said
    trust(pki, server)
    assert await temperature(plc) == 71.5


async def test_a_server_with_anothers_certificate_is_not_believed(server: OpcuaServer, pki: Path) -> None:
    """It shows the approved certificate, as anybody can, and does not hold its key."""
    trust(pki, server)
    stolen = server.certificate
    server.renew_certificate()
    server.show_certificate(stolen)
    await server.cut()
    await server.restore()
    with pytest.raises((DeviceAway, DeviceRefused)) as caught:
        await driver(server.url, pki, timeout_s=1.0).connect()
    assert "plc-1 (opcua" in str(caught.value)
    assert server.sessions == 0


async def test_what_the_server_does_not_offer_is_named(server: OpcuaServer, pki: Path) -> None:
    plc = driver(server.url, pki, security_policy="Aes128_Sha256_RsaOaep", security_mode="Sign")
    said = await refused(plc, "the server does not offer Aes128_Sha256_RsaOaep with Sign")
    assert "Basic256Sha256 Sign, Basic256Sha256 SignAndEncrypt, None" in said


async def test_without_a_data_dir_there_is_no_security(server: OpcuaServer) -> None:
    await refused(driver(server.url, None), "set data_dir")


# Users


async def test_user_and_password_over_a_secured_connection(server: OpcuaServer, pki: Path) -> None:
    trust(pki, server)
    server.admit({"operator": "se cret"})
    for mode in ("Sign", "SignAndEncrypt"):
        more = {"security_mode": mode, "username": "operator"}
        await refused(driver(server.url, pki, **more, password="secret"), "rejected user operator")
        assert await temperature(driver(server.url, pki, **more, password="se cret")) == 71.5
    await refused(driver(server.url, pki), "does not admit anonymous users")


@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("policy", ["None", "Basic256Sha256", "Aes256_Sha256_RsaPss"])
async def test_a_user_by_certificate(
    server: OpcuaServer, pki: Path, tmp_path: Path, form: Encoding, policy: str
) -> None:
    trust(pki, server)
    key, made = self_signed("urn:plant:operator", "operator")
    (tmp_path / "user.crt").write_bytes(made.public_bytes(form))
    (tmp_path / "user.key").write_bytes(key.private_bytes(form, PrivateFormat.PKCS8, NoEncryption()))
    more = {
        "security_policy": policy,
        "user_certificate": str(tmp_path / "user.crt"),
        "user_key": str(tmp_path / "user.key"),
    }
    server.admit({})
    await refused(driver(server.url, pki, **more), "rejected the user's certificate")
    server.admit_certificate(made.public_bytes(Encoding.DER))
    assert await temperature(driver(server.url, pki, **more)) == 71.5
    (tmp_path / "user.key").write_bytes(b"nonsense")
    await refused(driver(server.url, pki, **more), "cannot be read")


# Our own certificate


def names(pki: Path) -> list[str]:
    return sorted(path.name for path in pki.iterdir())


def test_our_certificate_is_made_once_and_for_our_eyes_only(pki: Path) -> None:
    now = datetime.now(UTC)
    [first] = identities(pki, now)
    [again] = identities(pki, now)
    assert first.fingerprint == again.fingerprint
    assert names(pki) == [PUBLIC, NEWEST]
    assert (pki.stat().st_mode & 0o777, (pki / NEWEST).stat().st_mode & 0o777) == (0o700, 0o600)
    assert (pki / PUBLIC).read_bytes() == first.certificate.public_bytes(Encoding.DER)
    assert re.fullmatch(r"urn:[\w.-]+:holdfast", first.application_uri)
    usage = first.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and usage.key_encipherment and usage.data_encipherment and usage.content_commitment


def test_a_key_that_others_may_read_is_closed_to_them(pki: Path) -> None:
    identities(pki, datetime.now(UTC))
    (pki / NEWEST).chmod(0o644)
    identities(pki, datetime.now(UTC))
    assert (pki / NEWEST).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
async def test_a_damaged_certificate_is_not_replaced_behind_ones_back(
    server: OpcuaServer, pki: Path, damage: bytes
) -> None:
    trust(pki, server)
    identities(pki, datetime.now(UTC))
    (pki / NEWEST).write_bytes(damage)
    await refused(driver(server.url, pki), "is damaged")
    assert (pki / NEWEST).read_bytes() == damage


def test_many_at_once_make_one_certificate(pki: Path) -> None:
    async def main() -> set[str]:
        now = datetime.now(UTC)
        made = await asyncio.gather(*(asyncio.to_thread(identities, pki, now) for _ in range(4)))
        return {found.fingerprint for each in made for found in each}

    assert len(asyncio.run(main())) == 1


async def test_a_renewed_certificate_locks_nobody_out(
    server: OpcuaServer, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(pki, server)
    long_ago = datetime.now(UTC) - opcua_identity.VALID + timedelta(days=60)
    [old] = identities(pki, long_ago)
    server.trust_clients((pki / PUBLIC).read_bytes())
    plc = driver(server.url, pki)
    with capture_logs() as logged:
        assert await temperature(plc) == 71.5  # as the old one: the server does not know the new one yet
    [warning] = [line for line in logged if line["event"].startswith("renewed the OPC UA client certificate")]
    ends = (long_ago + opcua_identity.VALID).date().isoformat()
    assert (warning["log_level"], warning["old_ends"], warning["file"]) == ("warning", ends, str(pki / PUBLIC))
    new, previous = identities(pki, datetime.now(UTC))
    assert previous.fingerprint == old.fingerprint != new.fingerprint
    assert names(pki) == [PREVIOUS, PUBLIC, NEWEST, opcua_trust.FILE]
    assert (pki / PREVIOUS).stat().st_mode & 0o777 == 0o600
    server.trust_clients((pki / PUBLIC).read_bytes())
    assert await temperature(plc) == 71.5
    server.trust_clients()
    said = await refused(plc, "rejects this gateway's certificate with BadCertificateUntrusted")
    assert str(pki / PUBLIC) in said
    [alone] = identities(pki, datetime.now(UTC) + timedelta(days=61))
    assert alone.fingerprint == new.fingerprint


async def test_a_server_that_says_no_by_hanging_up(
    server: OpcuaServer, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word, when the secure channel is opened: then the certificate before the renewal is tried, too."""
    trust(pki, server)
    [old] = identities(pki, datetime.now(UTC) - opcua_identity.VALID + timedelta(days=60))
    welcome = [(pki / PUBLIC).read_bytes(), server.certificate]  # the client's side of a connection asks, too
    select = SecureConnection.select_policy

    def hang_up(self: SecureConnection, uri: str, certificate: bytes | None, *more: Any) -> None:
        if certificate is not None and certificate not in welcome:
            assert server._listener is not None
            for client in list(server._listener.clients):
                if client.transport is not None:
                    client.transport.abort()
            raise ConnectionError("not welcome")
        select(self, uri, certificate, *more)

    monkeypatch.setattr(SecureConnection, "select_policy", hang_up)
    plc = driver(server.url, pki)
    assert await temperature(plc) == 71.5
    new, _ = identities(pki, datetime.now(UTC))
    assert new.fingerprint != old.fingerprint
    welcome.clear()
    with pytest.raises(DeviceAway, match="check that it trusts") as caught:
        await plc.connect()
    assert str(pki / PUBLIC) in str(caught.value)


async def test_a_secured_channel_is_renewed_in_time(
    server: OpcuaServer, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opcua_session, "CHANNEL_LIFETIME_S", 1.0)
    trust(pki, server)
    plc = driver(server.url, pki)
    await plc.connect()
    assert server._listener is not None
    [client] = server._listener.clients
    assert client.processor is not None
    channel = client.processor._connection
    first = channel.security_token.TokenId
    step = 0
    while channel.security_token.TokenId < first + 3:
        step += 1
        await server.set("Temperature", float(step), source=datetime.now(UTC))
        seen: list[object] = []
        while step not in seen:
            seen += [value for scan in await plc.read(GROUP) for value in scan.values]
            await asyncio.sleep(0.01)
    await plc.close()


# `holdfast opcua`


def configuration(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(
        json.dumps(
            {
                "gateway": {"thing": "g", "tenant": "t", "province": "p", "plant": "l"},
                "broker": {"host": "127.0.0.1"},
                "data_dir": str(tmp_path / "data"),
                "devices": [
                    {
                        "name": "plc-1",
                        "machine": "press-1",
                        "protocol": "opcua",
                        "url": url,
                        "security_policy": "Basic256Sha256",
                        "groups": [
                            {"tags": [{"name": "t", "node": "nsu=urn:plant:press;s=Temperature", "type": "float64"}]}
                        ],
                    }
                ],
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def program() -> Iterator[Prepared]:
    with prepared("agent.cli", "agent.settings", "protocols.field.opcua_security") as ready:
        yield ready


async def holdfast(program: Prepared, tmp_path: Path, *words: str) -> tuple[int, str]:
    """Exit code, and everything that was said."""
    ended = await asyncio.to_thread(program.run, list(words), cwd=tmp_path, environ={})
    return ended.code, ended.out + ended.err


async def test_trust_by_hand(server: OpcuaServer, program: Prepared, tmp_path: Path, pki: Path) -> None:
    config = ("--config", str(configuration(tmp_path, server.url)))
    shown = fingerprint(server.certificate)
    code, said = await holdfast(program, tmp_path, "opcua", "trust", "plc-1", *config)
    assert code != 0 and f"add --fingerprint {shown}" in said
    code, said = await holdfast(program, tmp_path, "opcua", "trust", "plc-1", "--fingerprint", "00:11", *config)
    assert code != 0 and "nothing approved" in said
    assert opcua_trust.approved(pki, server.url) is None
    code, said = await holdfast(
        program, tmp_path, "opcua", "trust", "plc-1", "--fingerprint", shown.replace(":", "").lower(), *config
    )
    assert code == 0 and shown in said
    assert await temperature(driver(server.url, pki)) == 71.5
    assert (pki / opcua_trust.FILE).stat().st_mode & 0o777 == 0o600
    code, said = await holdfast(program, tmp_path, "opcua", "trust", server.url, *config)
    assert code == 0 and "approved before" in said
    server.renew_certificate()
    await server.cut()
    await server.restore()
    code, said = await holdfast(program, tmp_path, "opcua", "trust", server.url, "--yes", "--json", *config)
    assert code == 0
    plain = json.loads(said)
    assert (plain["sha256"], plain["was_approved"]) == (fingerprint(server.certificate), False)
    assert await temperature(driver(server.url, pki)) == 71.5


async def test_trust_says_what_is_wrong(
    server: OpcuaServer, program: Prepared, tmp_path: Path, unused_tcp_port: int
) -> None:
    config = ("--config", str(configuration(tmp_path, server.url)))
    for name, says in (
        ("plc-2", "there is no device plc-2"),
        ("http://there", "no address of an OPC UA server"),
        (f"opc.tcp://127.0.0.1:{unused_tcp_port}", "the connection was refused"),
    ):
        code, said = await holdfast(program, tmp_path, "opcua", "trust", name, *config)
        assert code != 0 and says in said


async def test_shows_our_own_certificate(server: OpcuaServer, program: Prepared, tmp_path: Path, pki: Path) -> None:
    config = ("--config", str(configuration(tmp_path, server.url)))
    code, said = await holdfast(program, tmp_path, "opcua", "certificate", *config)
    [own] = identities(pki, datetime.now(UTC))
    assert code == 0
    assert own.fingerprint in said and str(own.public) in said and own.application_uri in said
