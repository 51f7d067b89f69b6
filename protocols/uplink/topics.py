"""The topics, as text and as values. Pure.

    factory/{tenant}/{province}/{plant}/{machine}/telemetry         gateway → cloud
    factory/{tenant}/{province}/{plant}/{machine}/definition/{device}/{group}     gateway → cloud, retained
    ops/{tenant}/{province}/{plant}/gateway/{thing}/status          gateway → cloud, retained, last will
    ops/{tenant}/{province}/{plant}/gateway/{thing}/confirm         cloud → gateway

At most seven slashes (AWS IoT Core's limit); a level never holds `+ # / $`, because names match NAME.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
_NAME = re.compile(NAME)

TELEMETRY_FILTER = "factory/+/+/+/+/telemetry"
DEFINITION_FILTER = "factory/+/+/+/+/definition/+/+"
STATUS_FILTER = "ops/+/+/+/gateway/+/status"


def is_name(text: str) -> bool:
    """Whether this may stand as a level of a topic."""
    return _NAME.fullmatch(text) is not None


class TopicError(ValueError):
    """The topic is none of ours; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Plant:
    """Whose and where: the prefix of every topic."""

    tenant: str
    province: str
    plant: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.province}/{self.plant}"


@dataclass(frozen=True, slots=True)
class MachineTopic:
    """A machine in its plant; its telemetry's topic."""

    plant: Plant
    machine: str

    @property
    def telemetry(self) -> str:
        return f"factory/{self.plant}/{self.machine}/telemetry"

    def definition(self, device: str, group: str) -> str:
        return f"factory/{self.plant}/{self.machine}/definition/{device}/{group}"


@dataclass(frozen=True, slots=True)
class GatewayTopic:
    """A gateway in its plant; its status and confirm topics."""

    plant: Plant
    thing: str

    @property
    def status(self) -> str:
        return f"ops/{self.plant}/gateway/{self.thing}/status"

    @property
    def confirm(self) -> str:
        return f"ops/{self.plant}/gateway/{self.thing}/confirm"


@dataclass(frozen=True, slots=True)
class DefinitionTopic:
    """A poll group of a machine's device; where its definition is published."""

    machine: MachineTopic
    device: str
    group: str

    @property
    def definition(self) -> str:
        return self.machine.definition(self.device, self.group)


def parse(topic: str) -> MachineTopic | DefinitionTopic | GatewayTopic:
    """The machine of telemetry, the group of a definition, the gateway of a status. Raises TopicError otherwise."""
    match topic.split("/"):
        case ["factory", tenant, province, plant, machine, "telemetry"]:
            _check(topic, tenant, province, plant, machine)
            return MachineTopic(Plant(tenant, province, plant), machine)
        case ["factory", tenant, province, plant, machine, "definition", device, group]:
            _check(topic, tenant, province, plant, machine, device, group)
            return DefinitionTopic(MachineTopic(Plant(tenant, province, plant), machine), device, group)
        case ["ops", tenant, province, plant, "gateway", thing, "status"]:
            _check(topic, tenant, province, plant, thing)
            return GatewayTopic(Plant(tenant, province, plant), thing)
    raise TopicError(f"topic {topic[:200]!r} is neither a machine's telemetry or definition nor a gateway's status")


def _check(topic: str, *names: str) -> None:
    for name in names:
        if not is_name(name):
            raise TopicError(f"topic {topic[:200]!r}: level {name[:80]!r} is not a name of the form {NAME}")
