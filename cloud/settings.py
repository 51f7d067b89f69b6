"""The receiver's settings: one YAML file. What belongs to a kind of store is checked by that store's own model."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud import store as stores
from cloud.store.contract import Store, StoreSettings
from protocols.program.logs import Level
from protocols.program.settings import Problem, Source, load
from protocols.uplink.mqtt_settings import BrokerSettings

DEFAULT_PATH = Path("/etc/holdfast/cloud.yaml")
ENV_PREFIX = "HOLDFAST_CLOUD_"
ENV_NOT_SETTINGS = ("HOLDFAST_CLOUD_CONFIG",)
CLIENT_ID = "holdfast-receiver"


class StoreModule(Protocol):
    """What a store's module offers: its settings model and its constructor, which raises StoreError."""

    Settings: type[StoreSettings]

    def open_store(self, settings: Any) -> Store: ...


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StoreChoice(BaseModel):
    """Which database. The kind's own keys stand beside `type`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    type: str = Field("sqlite", description="Kind of store; sqlite is the embedded one.")


class HttpSettings(_Strict):
    """The operators' page."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; keep it local or behind a proxy.")
    port: int = Field(8480, ge=0, le=65535, description="TCP port; 0: any free one.")
    names: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Further host names under which browsers may ask for the page, for example that of a proxy.",
    )


class LogSettings(_Strict):
    """The log, on stderr."""

    level: Level = Field("info", description="The least that is logged; --log-level goes before it.")


class CloudSettings(_Strict):
    """Everything the receiver needs to know."""

    broker: BrokerSettings = Field(description="The MQTT broker.")
    store: StoreChoice = Field(StoreChoice(), description="The database.")
    http: HttpSettings = Field(HttpSettings(), description="The operators' page.")
    log: LogSettings = Field(LogSettings(), description="The log.")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Checked settings, ready to be wired."""

    settings: CloudSettings
    store_module: StoreModule
    store_settings: StoreSettings

    def open_store(self) -> Store:
        """Raises StoreError."""
        return self.store_module.open_store(self.store_settings)


def find_store(kind: str) -> StoreModule | None:
    """The store module of this kind; None where there is none."""
    if kind not in {module.name for module in pkgutil.iter_modules(stores.__path__)}:
        return None
    module = importlib.import_module(f"{stores.__name__}.{kind}")
    return cast("StoreModule", module) if hasattr(module, "open_store") else None


def read(
    path: str | Path, *, overrides: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """Read and check everything. Raises SettingsError with every problem there is."""
    found: list[tuple[StoreModule, StoreSettings]] = []

    def check(source: Source) -> list[Problem]:
        whole = source.value if isinstance(source.value, dict) else {}
        choice = whole.get("store", {})
        if not isinstance(choice, dict):
            return []  # the first stage says so
        kind = choice.get("type", "sqlite")
        if not isinstance(kind, str):
            return []
        module = find_store(kind)
        if module is None:
            return [source.problem(("store", "type"), f"there is no store of type {kind!r}; use sqlite")]
        try:
            own = {key: value for key, value in choice.items() if key != "type"}
            found.append((module, module.Settings.model_validate(own)))
        except ValidationError as error:
            return source.explain(error, module.Settings, ("store",))
        return []

    loaded = load(
        path,
        CloudSettings,
        overrides=overrides or {},
        environ=os.environ if environ is None else environ,
        env_prefix=ENV_PREFIX,
        ignore=ENV_NOT_SETTINGS,
        also=check,
    )
    return Configuration(loaded.settings, *found[0])
