"""`holdfast-cloud check`: is everything in order, and if not, what is to be done?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud.commands.findings import Finding, Mark, failed, say
from cloud.commands.options import Assignments, Config, Json, now_us, read_configuration, settings_path
from protocols.program.console import TEMPORARY, UNAVAILABLE, ago
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import print_json, progress

if TYPE_CHECKING:
    from cloud.overview import Receiving
    from cloud.settings import Configuration, HttpSettings


def check(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> int:
    """Check configuration, database, broker and page."""
    from protocols.program import logs

    logs.configure(level="error")  # what is wrong stands in the findings
    path = settings_path(config)
    configuration = read_configuration(path, assignments)
    with progress("checking"):
        store, receiving, code = _store(configuration)
        findings = [Finding(Mark.OK, "configuration", str(path)), *store]
        findings.append(run_interruptible(_broker(configuration, receiving)))
        findings.append(_page(configuration.settings.http, receiving))
    bad = any(finding.mark is Mark.BAD for finding in findings)
    if as_json:
        print_json({"ok": not bad, "findings": findings})
    else:
        say(findings)
    return 0 if not bad else code or UNAVAILABLE


def _store(configuration: Configuration) -> tuple[list[Finding], Receiving | None, int]:
    """How the database is, what it says of a running receiver, and an exit code of its own."""
    from cloud import overview
    from cloud.store.contract import StoreAway, StoreError

    what = f"{configuration.settings.store.type} {getattr(configuration.store_settings, 'path', '')}".rstrip()
    try:
        store = configuration.open_store()
        try:
            plants, beat = len(store.plants()), store.receiver()
        finally:
            store.close()
    except StoreError as error:
        return [failed("store", str(error))], None, TEMPORARY if isinstance(error, StoreAway) else 0
    found = [Finding(Mark.OK, "store", f"{what} opens")]
    if not plants:
        fix = "holdfast-cloud tenant add NAME, then: holdfast-cloud plant add TENANT PROVINCE PLANT"
        found.append(Finding(Mark.NOTE, "plants", "none yet: all that arrives becomes a dead letter", fix))
    return found, overview.receiving(beat, now_us()), 0


async def _broker(configuration: Configuration, receiving: Receiving | None) -> Finding:
    """Connect once, as somebody else: with the receiver's own id the broker would hang up on a running receiver.

    Nothing is subscribed to, so that nothing gathers for this id. Over MQTT 5 its session ends with the connection;
    3.1.1 has no such wish, and an empty session stays.
    """
    from cloud.settings import CLIENT_ID
    from protocols.uplink.link import LinkError
    from protocols.uplink.mqtt import MqttCloudLink

    settings = configuration.settings.broker
    client_id = f"{settings.client_id or CLIENT_ID}-check"
    link = MqttCloudLink(settings.model_copy(update={"session_expiry_s": 0}), client_id)
    try:
        connected = await link.connect([])
    except LinkError as error:
        return failed("broker", str(error).removeprefix("MQTT broker "))
    finally:
        await link.close()
    secured = "without TLS" if settings.tls is None else "TLS"
    text = f"{settings.host}:{settings.port} lets {client_id!r} in, {connected.protocol}, {secured}"
    if receiving is not None and receiving.running and not receiving.connected:
        fix = "read its log; its client id or its access rules may differ"
        return Finding(Mark.BAD, "broker", f"{text}; but the running receiver has no connection", fix)
    return Finding(Mark.OK, "broker", text + _since(receiving))


def _since(receiving: Receiving | None) -> str:
    if receiving is None or not receiving.connected:
        return ""
    return f"; the running receiver is connected for {ago((receiving.as_of_us - receiving.listening_since_us) / 1e6)}"


def _page(http: HttpSettings, receiving: Receiving | None) -> Finding:
    from protocols.program.listening import PageError, listen, url

    try:
        with listen(http.host, http.port, page="operators' page", key="http") as listening:
            shown = f"{url(http.host, listening)} is free" if http.port else "any free port will be taken"
    except PageError as error:
        if error.in_use and receiving is not None and receiving.running:
            return Finding(Mark.OK, "page", f"{http.host}:{http.port} is in use; a receiver is running")
        return failed("page", str(error))
    if receiving is not None and receiving.running and http.port:
        fix = "a running receiver serves its page elsewhere; restart it to use this configuration"
        return Finding(Mark.NOTE, "page", shown, fix)
    return Finding(Mark.OK, "page", shown)
