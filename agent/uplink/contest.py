"""Whether another program fights for our client id at the broker. Pure.

A broker lets one client be connected under an id: a second one takes the session over, and the first is cut off. Two
gateways with one name would do that to each other for ever, once a second. MQTT 5 has a reason code for it, which not
every broker sends (Mosquitto 2.0.11 does not); without it, it shows in connections that the broker ends right after
they were made, again and again, while each attempt succeeds at once and finds the session kept: a broker that restarts
is away for a moment. A bad line looks the same, so this is a suspicion and no more: it is said, and there are a few
seconds between the attempts, so that a line that is good again is used again soon.
"""

from __future__ import annotations

from protocols.uplink.link import LinkError, LinkHungUp, LinkTakenOver

WITHIN_S = 60.0
TAKE_OVERS = 2
HANG_UPS = 8  # a bad line cuts a few times, too; a rival does not tire
SHORT_S = 5.0
"""A connection that lived no longer was ended right after it was made."""

OVER_S = 180.0
"""A connection that lives so long is nobody else's."""


class Contest:
    """`sentence`: what to tell a person; empty while nothing speaks for a second client.

    `is_certain`: the broker itself says so.
    """

    def __init__(self, client_id: str) -> None:
        self.sentence = ""
        self.is_certain = False
        self._client_id = client_id
        self._take_overs: list[float] = []
        self._hang_ups: list[float] = []

    def connect_failed(self) -> None:
        """The broker could not be reached: what it did before says nothing."""
        self._hang_ups.clear()

    def lost(self, error: LinkError, lived_s: float, now_s: float, *, had_session: bool) -> None:
        """A connection ended that lived so long; `had_session`: it found the session of the one before."""
        if lived_s >= OVER_S:
            self._hang_ups.clear()
            self._over()
        if isinstance(error, LinkTakenOver):
            self._take_overs = [*self._since(self._take_overs, now_s), now_s]
        elif isinstance(error, LinkHungUp) and lived_s < SHORT_S and had_session:
            self._hang_ups = [*self._since(self._hang_ups, now_s), now_s]
        else:
            self._hang_ups.clear()
        if len(self._take_overs) >= TAKE_OVERS:
            self._say("another client takes this connection over, again and again", "every 30 to 60 s")
            self.is_certain = True
        elif len(self._hang_ups) >= HANG_UPS:
            self._say(
                f"the broker ended the connection {HANG_UPS} times right after it was made, as it does where another "
                "client takes it over",
                "every few seconds",
                or_else="or the line is bad; ",
            )

    def goes_on(self, lived_s: float) -> None:
        """The connection is up and has lived so long."""
        if lived_s >= OVER_S:
            self._over()
            self._take_overs.clear()

    def _over(self) -> None:
        self.sentence, self.is_certain = "", False

    def _say(self, what: str, when: str, or_else: str = "") -> None:
        self.sentence = (
            f"{what}: two programs use the client id {self._client_id!r}; {or_else}look for a copy of this gateway, "
            f"and give each gateway a thing name of its own. It is tried again {when}; the data waits here on disk"
        )

    @staticmethod
    def _since(times_s: list[float], now_s: float) -> list[float]:
        return [at_s for at_s in times_s if now_s - at_s < WITHIN_S]
