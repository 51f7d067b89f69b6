"""The gateway's settings: one YAML file. What belongs to a protocol is checked by that protocol's own models."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent import drivers
from agent.derived_settings import DerivedSettings, derive
from agent.outbox.contract import HIGH, LOW, NORMAL
from agent.rules import Default, GroupRules, group_rules, misfits
from agent.uplink.pace import BACKLOG_BYTES_PER_S
from agent.written_tags import taken_names
from protocols.field.contract import (
    Deadband,
    DriverModule,
    Group,
    Silence,
    StrictModel,
    Tag,
    TagSettingsBase,
)
from protocols.program.problem import is_secret
from protocols.program.settings import Problem, SettingsError, Source, load
from protocols.uplink.mqtt_settings import BrokerSettings
from protocols.uplink.topics import NAME, GatewayTopic, MachineTopic, Plant

DEFAULT_PATH = Path("/etc/holdfast/agent.yaml")
ENV_PREFIX = "HOLDFAST_"
ENV_NOT_SETTINGS = ("HOLDFAST_CONFIG", "HOLDFAST_CLOUD_*")
PERIOD_S_MIN = 0.05
DAY_S = 24 * 3600
YEAR_S = 365 * DAY_S
PRIORITIES = {"low": LOW, "normal": NORMAL, "high": HIGH}

Name = Annotated[str, Field(pattern=f"^{NAME}$")]
SettingsModel = TypeVar("SettingsModel", bound=BaseModel)


class GatewaySettings(StrictModel):
    """Who this gateway is, and where it stands: the prefix of its topics."""

    thing: Name = Field(description="The gateway's thing name: its MQTT client id, and its certificate's CN.")
    tenant: Name = Field(description="Whose plant this is.")
    province: Name = Field(description="Province or region of the plant.")
    plant: Name = Field(description="The plant.")


class OutboxSettings(StrictModel):
    """The buffer on disk."""

    limit_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Most bytes of batches to hold; then confirmed ones go, then `when_full` says."
    )
    when_full: Literal["drop_oldest", "thin"] = Field(
        "drop_oldest",
        description="What goes when the buffer is full, lowest priority first: `drop_oldest`: the oldest batches; "
        "`thin`: every second scan of the oldest, so that a longer time stays, more coarsely.",
    )
    age_max_s: float = Field(
        0, ge=0, le=10 * YEAR_S, description="Unconfirmed batches older than this are let go of (seconds); 0: never."
    )
    grace_s: float = Field(
        DAY_S,
        ge=0,
        le=YEAR_S,
        description="How long confirmed batches are kept while there is room (seconds), in case the database is set "
        "back to a backup: then they are sent again.",
    )
    free_disk_bytes: int = Field(
        0, ge=0, description="Leave at least so much of the disk free for others; the buffer grows no more below it."
    )
    reserve_bytes: int = Field(8 << 20, ge=0, description="Disk space kept in reserve, so that a full disk can drain.")


class UplinkSettings(StrictModel):
    """How what is buffered is sent."""

    backlog_bytes_per_s: int = Field(
        BACKLOG_BYTES_PER_S,
        ge=0,
        description="How fast the backlog of an outage is sent, beside new readings, which always go first (bytes per "
        "second); 0: as fast as link and receiver take it.",
    )


class BatchSettings(StrictModel):
    """How readings become messages."""

    interval_s: float = Field(
        1.0, ge=0, le=3600, description="How long readings are collected for one message; 0: each scan goes at once."
    )


class ClockSettings(StrictModel):
    """Who says that this machine's clock is right."""

    synchronised: str = Field(
        "kernel",
        pattern="^(kernel|always|/.+)$",
        description="`kernel`: what NTP tells the kernel; until then readings are marked, and corrected afterwards. "
        "`always`: something else keeps the clock right, nothing is marked. The path of a file: the clock is right "
        "once that exists.",
    )


class GroupSettings(BaseModel):
    """Tags of one device that are read together. A protocol may add keys of its own."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: Name = Field("main", description="Name of the poll group, unique in its device.")
    period_s: float = Field(1.0, ge=PERIOD_S_MIN, le=86_400, description="Seconds from one read to the next.")
    priority: Literal["low", "normal", "high"] = Field(
        "normal",
        description="`high` is sent first after an outage, and dropped last when the buffer is full; `low` the other "
        "way round.",
    )
    deadband: Deadband | None = Field(
        None,
        description="Report of all tags only changes, of numbers those of more than this: in the tag's unit, or as "
        "`2 %` of the value reported last; 0: each change. Default: each read is reported.",
    )
    max_silence_s: Silence | None = Field(
        None,
        description="Report of all tags only changes, but at least one reading in so many seconds. Default: an hour "
        "where there is a deadband.",
    )
    tags: list[dict[str, Any]] = Field(min_length=1, max_length=20_000, description="The tags; keys by protocol.")
    derived: list[DerivedSettings] = Field(
        [],
        max_length=1000,
        description="Tags that are computed from others of the machine, when this group is read.",
    )


class DeviceSettings(BaseModel):
    """One endpoint on the floor. The protocol's own keys stand beside these."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: Name = Field(description="Name of the device, unique in this file.")
    machine: Name = Field(description="The machine that the device belongs to; it owns the sequence of numbers.")
    protocol: str = Field(description="Name of the driver, for example modbus or opcua.")
    groups: list[GroupSettings] = Field(min_length=1, max_length=100, description="The poll groups.")


class PageSettings(StrictModel):
    """The agent's own page, for a browser. Needs the extra `page`."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; it has no login: keep it local.")
    port: int = Field(8470, ge=0, le=65535, description="TCP port; 0: any free one.")
    names: tuple[str, ...] = Field(
        (), strict=False, description="Further host names under which browsers may ask for the page."
    )


class AgentSettings(StrictModel):
    """Everything the agent needs to know."""

    gateway: GatewaySettings = Field(description="Who this gateway is.")
    broker: BrokerSettings = Field(description="The MQTT broker.")
    data_dir: str = Field("/var/lib/holdfast", min_length=1, description="Directory of the outbox; on a real disk.")
    outbox: OutboxSettings = Field(OutboxSettings(), description="The buffer on disk.")
    uplink: UplinkSettings = Field(UplinkSettings(), description="How what is buffered is sent.")
    batch: BatchSettings = Field(BatchSettings(), description="How readings become messages.")
    clock: ClockSettings = Field(ClockSettings(), description="Who says that this machine's clock is right.")
    delivery: Literal["confirmed", "broker"] = Field(
        "confirmed",
        description="What lets a batch go: the receiver's confirm; or, for a foreign receiver, the broker's.",
    )
    shutdown_drain_s: float = Field(5.0, ge=0, le=600, description="How long a planned stop may send what is left.")
    page: PageSettings | None = Field(None, description="The agent's own page; without this key there is none.")
    devices: list[DeviceSettings] = Field(min_length=1, max_length=1000, description="The devices on the floor.")


@dataclass(frozen=True, slots=True)
class Device:
    """A device with its driver's own models applied."""

    name: str
    machine: str
    protocol: str
    module: DriverModule
    settings: StrictModel
    groups: tuple[Group, ...]
    rules: dict[str, GroupRules] = field(default_factory=dict)
    """By the name of the group, those of derived tags among them. None: its readings go through as they are."""

    @property
    def derived(self) -> tuple[Group, ...]:
        """The groups of the tags that are derived when its groups are read."""
        return tuple(rules.derived for rules in self.rules.values() if rules.derived is not None)

    @property
    def published(self) -> tuple[Group, ...]:
        """All groups whose readings go to the receiver."""
        return self.groups + self.derived

    @property
    def address_key(self) -> str | None:
        """The key that says where a tag is: the first that a driver demands beyond those of all tags."""
        fields = self.module.TagSettings.model_fields
        own = (name for name, one in fields.items() if one.is_required() and name not in TagSettingsBase.model_fields)
        return next(own, None)

    @property
    def endpoint(self) -> str:
        """Where it is: a host and port, a serial port, or a URL."""
        link = getattr(self.settings, "link", None)
        if link is not None:
            return f"{link.host}:{link.port}" if link.port else str(link.host)
        return str(getattr(self.settings, "endpoint", "-"))


@dataclass(frozen=True, slots=True)
class Configuration:
    """Checked settings, ready to be wired. `hash` tells two configurations apart, secrets left out."""

    settings: AgentSettings
    devices: tuple[Device, ...]
    hash: str

    @property
    def gateway(self) -> GatewayTopic:
        return GatewayTopic(self._plant, self.settings.gateway.thing)

    @property
    def machines(self) -> dict[str, MachineTopic]:
        return {device.machine: MachineTopic(self._plant, device.machine) for device in self.devices}

    @property
    def _plant(self) -> Plant:
        gateway = self.settings.gateway
        return Plant(gateway.tenant, gateway.province, gateway.plant)

    def device(self, name: str) -> Device | None:
        return next((device for device in self.devices if device.name == name), None)


def read(
    path: str | Path, *, overrides: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """Read and check everything. Raises SettingsError with every problem there is."""
    found: list[Device] = []

    def check(source: Source) -> list[Problem]:
        devices, problems = _devices(source)
        found.extend(devices)
        return problems

    loaded = load(
        path,
        AgentSettings,
        overrides=overrides or {},
        environ=os.environ if environ is None else environ,
        env_prefix=ENV_PREFIX,
        ignore=ENV_NOT_SETTINGS,
        also=check,
    )
    return Configuration(loaded.settings, tuple(found), _hash(loaded.settings))


def _hash(settings: AgentSettings) -> str:
    """Device by device: ten thousand tags as one text would be the most memory that the agent ever takes."""
    digest = hashlib.sha256()
    for part, left_out in ((settings, {"devices"}), *((device, set[str]()) for device in settings.devices)):
        plain = without_secrets(part.model_dump(mode="json", exclude=left_out))
        digest.update(json.dumps(plain, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_secrets(inner) for key, inner in value.items() if not is_secret((key,))}
    return [without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _devices(source: Source) -> tuple[list[Device], list[Problem]]:
    """Each device by its protocol's models, and what must be unique across the file."""
    whole = source.value
    given = whole.get("devices") if isinstance(whole, dict) else None
    listed = given if isinstance(given, list) else []
    devices: list[Device] = []
    problems = taken_names(source, listed)
    names: dict[str, int] = {}
    for at, device in enumerate(listed):
        if not isinstance(device, dict):
            continue  # the first stage has said so
        name = str(device.get("name"))
        if names.setdefault(name, at) != at:
            problems.append(
                source.problem(("devices", at, "name"), f"a device {name} stands above; choose another name")
            )
        module = _module(source, at, device, problems)
        if module is not None:
            built = _device(source, at, device, module, problems)
            if built is not None:
                devices.append(built)
    problems += derive(source, listed, devices)
    return devices, problems


def _module(source: Source, at: int, device: dict[str, Any], problems: list[Problem]) -> DriverModule | None:
    protocol = device.get("protocol")
    if not isinstance(protocol, str):
        return None  # the first stage has said so
    module = drivers.find(protocol)
    if module is None:
        known = drivers.known()
        close = difflib.get_close_matches(protocol, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        problems.append(source.problem(("devices", at, "protocol"), f"there is no driver for {protocol!r}; {hint}"))
    return module


def _device(
    source: Source, at: int, device: dict[str, Any], module: DriverModule, problems: list[Problem]
) -> Device | None:
    known = len(problems)
    own = {key: value for key, value in device.items() if key not in DeviceSettings.model_fields}
    settings = _validated(source, module.Settings, own, ("devices", at), problems, beside=DeviceSettings)
    groups: list[Group] = []
    rules: dict[str, GroupRules] = {}
    listed = device.get("groups")
    for number, group in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(group, dict):
            where = ("devices", at, "groups", number)
            built, rules_of = _group(source, where, str(device.get("name")), group, module, problems)
            if built.name in rules:
                problems.append(source.problem(where, f"a group {built.name} stands above; give each group a name"))
            rules[built.name] = rules_of
            groups.append(built)
    if settings is None:
        return None
    name, machine, protocol = (str(device.get(key)) for key in ("name", "machine", "protocol"))
    if len(problems) == known:  # what only shows when everything is put together
        try:
            module.driver(name, settings, groups)
        except ValueError as error:
            problems.append(source.problem(("devices", at), str(error)))
    return Device(name, machine, protocol, module, settings, tuple(groups), rules)


def _group(
    source: Source,
    path: tuple[str | int, ...],
    device: str,
    group: dict[str, Any],
    module: DriverModule,
    problems: list[Problem],
) -> tuple[Group, GroupRules]:
    own = {key: value for key, value in group.items() if key not in GroupSettings.model_fields}
    options = _validated(source, module.GroupSettings, own, path, problems, beside=GroupSettings)
    listed = group.get("tags")
    tags: list[tuple[TagSettingsBase, Tag]] = []
    for number, tag in enumerate(listed if isinstance(listed, list) else []):
        where = (*path, "tags", number)
        settings = _validated(source, module.TagSettings, tag, where, problems) if isinstance(tag, dict) else None
        if settings is not None:
            try:
                tags.append((settings, module.tag(settings)))
            except ValueError as error:
                problems.append(source.problem(where, str(error)))
                continue
            problems += [source.problem((*where, key), what) for key, what in misfits(settings, tags[-1][1].value_type)]
    period_s = group.get("period_s", 1.0)
    number_or_default = float(period_s) if isinstance(period_s, int | float) and period_s > 0 else 1.0
    priority = PRIORITIES.get(str(group.get("priority")), NORMAL)
    name, of_group = str(group.get("name", "main")), tuple(tag for _, tag in tags)
    return Group(device, name, number_or_default, of_group, options, priority), group_rules(tags, Default.of(group))


def _validated(
    source: Source,
    model: type[SettingsModel],
    value: Any,
    path: tuple[str | int, ...],
    problems: list[Problem],
    beside: type[BaseModel] | None = None,
) -> SettingsModel | None:
    """`beside`: what reads the keys of every protocol that stand at the same place."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems.extend(source.explain(error, model, path, tuple(beside.model_fields) if beside else ()))
        return None


__all__ = ["DEFAULT_PATH", "AgentSettings", "Configuration", "Device", "SettingsError", "read"]
