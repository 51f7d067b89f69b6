"""What the configuration says of an OPC UA server, its tags and its groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from protocols.field.contract import StrictModel, TagSettingsBase, ValueType
from protocols.field.opcua_nodes import NodeAddress, parse_node

DEFAULT_PORT = 4840  # the port registered for opc.tcp


class Settings(StrictModel):
    """An OPC UA server, reached without security, as an anonymous user or by user name and password."""

    url: str = Field(description="Address of the server: opc.tcp://host:port/path. Port 4840 where none is given.")
    timeout_s: float = Field(4.0, gt=0, le=60, description="How long an answer of the server may take, in seconds.")
    session_timeout_s: float = Field(
        60.0,
        ge=5,
        le=3600,
        description="How long the server keeps the session of a gateway that fell silent, in seconds; at least three "
        "periods. Short, because small servers allow few sessions and an abandoned one counts.",
    )
    username: str | None = Field(None, min_length=1, description="User name. Without one the user is anonymous.")
    password: SecretStr | None = Field(
        None,
        description="Password of that user; prefer password_file. It travels encrypted only if the server offers it.",
    )
    password_file: Path | None = Field(
        None, strict=False, description="File that holds the password, instead of writing it here."
    )
    max_nodes_per_read: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Nodes read or monitored by one request at most; a lower limit of the server goes first. "
        "Small PLCs become slow far below the limit that they announce.",
    )

    @field_validator("url")
    @classmethod
    def _is_opc_tcp(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r} is no address ({error}); write opc.tcp://host:port/path") from None
        if parts.scheme != "opc.tcp" or not parts.hostname or port == 0:
            raise ValueError(f"{url!r} is no address of an OPC UA server; write opc.tcp://host:port/path")
        if "@" in parts.netloc:
            raise ValueError("a user and password do not belong in the address; write username and password_file")
        return url

    @model_validator(mode="after")
    def _credentials_fit(self) -> Settings:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are given; keep one")
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise ValueError("a password needs a username")
        return self

    @property
    def endpoint(self) -> str:
        """The address with its port."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return parts._replace(netloc=f"{host}:{parts.port or DEFAULT_PORT}").geturl()

    def secret(self) -> str | None:
        """The password, from wherever it is kept. OSError or UnicodeDecodeError when its file cannot be read."""
        if self.password_file is not None:
            return self.password_file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        return None if self.password is None else self.password.get_secret_value()


class TagSettings(TagSettingsBase):
    """A variable of the server."""

    node: str = Field(
        description="The node: nsu=urn:plant:press;s=Temperature, with the namespace's URI. ns=2;s=Temperature is "
        "accepted too, but a server may number its namespaces anew, and the tag then reads another node.",
    )
    type: ValueType = Field(
        strict=False,
        description="Type of the tag's values: bool, int, uint, float32, float64 or string. A value that does not fit "
        "is reported as bad. float32 rounds a Double. string takes dates (ISO 8601), bytes (hex), localized text.",
    )
    scale: float = Field(
        1.0, allow_inf_nan=False, description="Factor for float32 and float64: value × scale + offset."
    )
    offset: float = Field(0.0, allow_inf_nan=False, description="Added after scaling.")

    @field_validator("node")
    @classmethod
    def _is_node(cls, node: str) -> str:
        parse_node(node)
        return node

    @model_validator(mode="after")
    def _scale_fits(self) -> TagSettings:
        if self.scale == 0:
            raise ValueError("scale is 0, so that every value would be the same")
        if (self.scale, self.offset) != (1.0, 0.0) and self.type not in (ValueType.FLOAT32, ValueType.FLOAT64):
            raise ValueError(f"scale and offset are for type float32 and float64, not for {self.type.value}")
        return self


class GroupSettings(StrictModel):
    """How the tags of a group are watched."""

    mode: Literal["subscribe", "poll"] = Field(
        "subscribe",
        description="subscribe: the server reports changes by itself, none is missed between two readings. "
        "poll: the gateway asks once per period and passes on what changed.",
    )
    sampling_ms: int | None = Field(
        None,
        ge=0,
        le=86_400_000,
        description="How often the server looks at a value, in milliseconds. Default: the period.",
    )
    queue_size: int = Field(
        10,
        ge=1,
        le=100_000,
        description="Changes of a tag that the server keeps until it reports them. Raised to what one period needs.",
    )


@dataclass(frozen=True, slots=True)
class Address:
    """What the driver keeps in `Tag.address`."""

    node: NodeAddress
    scale: float = 1.0
    offset: float = 0.0
