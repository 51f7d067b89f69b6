"""What a broker's reason codes mean to us, and in which words a person is told. Pure.

Codes: MQTT 5.0 (OASIS, 7 March 2019), section 2.4 and the sections of each packet. paho-mqtt translates the return
codes of MQTT 3.1.1 to these before we see them.
"""

from __future__ import annotations

from protocols.uplink.link import LinkAway, LinkError, LinkRefused, LinkTakenOver, Outcome

SUCCESS = 0x00
UNSUPPORTED_VERSION = 0x84
NO_QOS_1 = 0x9B
PROTOCOL_ERROR = 0x82
KEEP_ALIVE = 0x8D
TAKEN_OVER = 0x8E
FAILURE = 0x80
"""Codes from here on say no."""

_OUTCOMES = {
    SUCCESS: Outcome.ACCEPTED,
    0x10: Outcome.NO_SUBSCRIBERS,
    0x87: Outcome.DENIED,
    0x95: Outcome.TOO_LARGE,  # no PUBACK code by the specification, but what Mosquitto sends
    0x97: Outcome.QUOTA,
}

_AWAY = {
    0x80: "it gives no reason",
    0x83: "an error of its own",
    0x88: "it is not available",
    0x89: "it is busy",
    0x97: "its quota is used up",
    0x9F: "too many connections in a short time",
}

_REMEDIES = {
    UNSUPPORTED_VERSION: "it does not speak this version of MQTT; set mqtt_version to auto",
    0x85: "it does not accept the client id; ask its operator which ids it allows",
    0x86: "wrong user name or password; check username and password_file",
    0x87: "not authorised; check username and password_file or the client certificate, and that the broker lets this "
    "client id connect",
    0x8A: "this client is banned; ask its operator",
    0x8C: "it wants another method of authentication; check username or the client certificate",
    0x90: "it does not allow the last will's topic; check tenant, province and plant, and its access rules",
    0x95: "the last will is too large for it; raise its limit of the packet size",
    0x9A: "it keeps no retained messages; allow them at the broker",
    0x9B: "it does not offer QoS 1; allow it at the broker",
    0x9C: "use another server; change host",
    0x9D: "it has moved; change host",
}


def outcome(code: int) -> Outcome:
    """What a PUBACK's reason code says of the message; any code that we don't know is a refusal."""
    return _OUTCOMES.get(code, Outcome.REFUSED)


def connect_error(where: str, client_id: str, code: int, name: str) -> LinkError:
    """Why a CONNACK with this code (its `name` in the specification) gave no connection."""
    if code in _AWAY:
        return LinkAway(f"{where}: the broker takes no connection just now: {_AWAY[code]}; it will be tried again")
    remedy = _REMEDIES.get(code, f"{name} (reason code 0x{code:02x}); ask its operator")
    return LinkRefused(f"{where}: the broker refused client {client_id!r}: {remedy}")


def subscribe_error(where: str, client_id: str, topic: str, code: int, name: str) -> LinkRefused | None:
    """Why a subscription is of no use; None when it was granted with QoS 1 or better."""
    if code == 0:
        return LinkRefused(f"{where}: the broker grants QoS 0 only for {topic}; allow QoS 1, or messages get lost")
    if code < FAILURE:
        return None
    return LinkRefused(
        f"{where}: the broker refused the subscription to {topic} ({name}); allow client {client_id!r} to read it"
    )


def disconnect_error(where: str, client_id: str, code: int, name: str) -> LinkAway:
    """Why the broker ended a connection that was up."""
    if code == TAKEN_OVER:
        return LinkTakenOver(
            f"{where}: another client has connected with the same client id {client_id!r} and taken over the session; "
            "give each program a client id of its own"
        )
    return LinkAway(f"{where}: the broker ended the connection: {name}")
