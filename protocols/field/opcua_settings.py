"""What the configuration says of an OPC UA server, its tags and its groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from protocols.field.contract import StrictModel, TagSettingsBase, ValueType
from protocols.field.opcua_nodes import NodeAddress, parse_node
from protocols.field.opcua_parts import Part, parse_part

# As the standard names them (OPC 10000-7). The older Basic256 and Basic128Rsa15 rest on SHA-1 and are not offered.
Policy = Literal["None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]

# Nodes in one request that servers of a manufacturer answer well, where that differs from what suits small PLCs. An
# S7-1200 announces 1,000 and is 50 times slower above 200; a server program on a computer takes far more.
PRACTICAL_NODES = 200
_PRACTICAL = (
    ("siemens", 200),
    ("ptc", 1000),
    ("kepware", 1000),
    ("inductive automation", 1000),
    ("prosys", 1000),
    ("softing", 1000),
    ("matrikon", 1000),
    ("nodeopcua", 1000),
    ("node-opcua", 1000),
)


def practical_nodes(manufacturer: str) -> int:
    """How many nodes go into one request to a server of this manufacturer, as it names itself."""
    name = manufacturer.lower()
    return next((nodes for word, nodes in _PRACTICAL if word in name), PRACTICAL_NODES)


DEFAULT_PORT = 4840  # the port registered for opc.tcp


class Settings(StrictModel):
    """An OPC UA server: how it is reached, how the connection is secured, and as which user. docs/opcua.md has more."""

    url: str = Field(description="Address of the server: opc.tcp://host:port/path. Port 4840 where none is given.")
    timeout_s: float = Field(4.0, gt=0, le=60, description="How long an answer of the server may take, in seconds.")
    session_timeout_s: float = Field(
        60.0,
        ge=5,
        le=3600,
        description="How long the server keeps the session of a gateway that fell silent, in seconds; at least three "
        "periods. Short, because small servers allow few sessions and an abandoned one counts.",
    )
    security_policy: Policy = Field(
        "None",
        description="How the connection is secured. With any but None the server's certificate must be approved once: "
        "holdfast opcua trust DEVICE.",
    )
    security_mode: Literal["Sign", "SignAndEncrypt"] | None = Field(
        None,
        description="Sign: nobody can change what is sent; SignAndEncrypt: nor read it. Default: SignAndEncrypt, where "
        "there is a security_policy.",
    )
    username: str | None = Field(None, min_length=1, description="User name. Without one the user is anonymous.")
    password: SecretStr | None = Field(
        None,
        description="Password of that user; prefer password_file. Without a security_policy it travels encrypted only "
        "if the server offers it, and nobody knows whether it is the right server.",
    )
    password_file: Path | None = Field(
        None, strict=False, description="File that holds the password, instead of writing it here."
    )
    user_certificate: Path | None = Field(
        None, strict=False, description="The user's X.509 certificate (PEM or DER), instead of a name and a password."
    )
    user_key: Path | None = Field(None, strict=False, description="Its private key (PEM or DER), without a password.")
    max_nodes_per_read: int = Field(
        PRACTICAL_NODES,
        ge=1,
        le=10_000,
        description="Nodes read or monitored by one request at most; a lower limit of the server goes first. "
        "Small PLCs become slow far below the limit that they announce. Where it is not given, servers that are known "
        "to run on computers get 1000.",
    )
    clock_tolerance_s: float = Field(
        30.0,
        ge=1,
        le=31_536_000,
        description="How far the server's clock may be from the gateway's, in seconds. Time stamps beyond are not "
        "believed: the reading gets the gateway's time, and its quality is uncertain.",
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
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("user_certificate and user_key belong together; give both")
        if self.username is not None and self.user_certificate is not None:
            raise ValueError("username and user_certificate are given; keep one")
        return self

    @model_validator(mode="after")
    def _security_fits(self) -> Settings:
        if self.security_policy == "None" and self.security_mode is not None:
            raise ValueError("security_mode needs a security_policy, such as Basic256Sha256")
        return self

    @property
    def is_secure(self) -> bool:
        """Whether the connection is signed at least."""
        return self.security_policy != "None"

    @property
    def mode(self) -> Literal["None", "Sign", "SignAndEncrypt"]:
        """The standard's name of the message security mode."""
        return (self.security_mode or "SignAndEncrypt") if self.is_secure else "None"

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
    part: str = Field(
        "",
        description="One part of an array or structure: [3], Position.X, Axes[2].Speed. Several tags may take "
        "different parts of one node, which is read once.",
    )
    deadband_percent: float | None = Field(
        None,
        gt=0,
        le=100,
        description="The server reports a change of more than this only, in percent of the range (EURange) that it "
        "gives to the node. An absolute `deadband` is applied by the server, too, where it reports by itself.",
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

    @field_validator("part")
    @classmethod
    def _is_part(cls, part: str) -> str:
        parse_part(part)
        return part

    @model_validator(mode="after")
    def _deadband_fits(self) -> TagSettings:
        if self.deadband is not None and self.deadband_percent is not None:
            raise ValueError("deadband and deadband_percent are given; keep one")
        if (self.deadband not in (None, 0) or self.deadband_percent) and self.type in (
            ValueType.BOOL,
            ValueType.STRING,
        ):
            raise ValueError(f"a deadband is for numbers, not for type {self.type.value}")
        return self

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
    discard: Literal["oldest", "newest"] = Field(
        "oldest",
        description="What the server drops when that queue is full: the oldest change, or the newest but one.",
    )


@dataclass(frozen=True, slots=True)
class Address:
    """What the driver keeps in `Tag.address`."""

    node: NodeAddress
    scale: float = 1.0
    offset: float = 0.0
    part: Part = ()
    deadband: float | None = None  # in the server's unit
    deadband_percent: float | None = None
