"""How to reach the MQTT broker, as a person writes it in the configuration. Same model for both ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

PORT = 1883
PORT_TLS = 8883
WEEK_S = 7 * 24 * 3600

FilePath = Annotated[Path, Field(strict=False)]
"""Strict mode would take a Path object only, and a configuration file has text."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TlsSettings(_Settings):
    """TLS towards the broker. The files are read at every connect, so that a renewed certificate is used."""

    ca_file: FilePath | None = Field(
        None,
        description="PEM file of the certificate authority that signed the broker's certificate; none: the system's.",
    )
    cert_file: FilePath | None = Field(
        None, description="PEM file of our own certificate, with any intermediates after it."
    )
    key_file: FilePath | None = Field(None, description="PEM file of our certificate's private key, not encrypted.")
    server_name: str | None = Field(
        None, min_length=1, description="Name that the broker's certificate must carry, where it is not `host`."
    )

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; give both or neither")
        return self


class BrokerSettings(_Settings):
    """One MQTT broker, and how this program connects to it."""

    host: str = Field(min_length=1, description="The broker's name or IP address.")
    tls: TlsSettings | None = Field(None, description="Encrypt the connection; `{}`: with the system's authorities.")
    port: int = Field(PORT, ge=1, le=65535, description=f"TCP port; where it is not given and `tls` is: {PORT_TLS}.")
    username: str | None = Field(None, min_length=1, description="User name at the broker.")
    password: SecretStr | None = Field(None, description="Password; better kept in `password_file`.")
    password_file: FilePath | None = Field(None, description="File whose first line is the password.")
    client_id: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Client id, one of its own for every program; default: the program's own name.",
    )
    mqtt_version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="`auto`: MQTT 5, or 3.1.1 where the broker knows nothing newer."
    )
    keep_alive_s: int = Field(
        20, ge=2, le=3600, description="A broker that says nothing for twice as long counts as lost (seconds)."
    )
    session_expiry_s: int = Field(
        WEEK_S,
        ge=0,
        le=2**32 - 1,
        description="How long the broker keeps our session while we are away (seconds; MQTT 5 only).",
    )
    in_flight_max: int = Field(
        50, ge=1, le=1000, description="Messages sent and not yet acknowledged, at most; the broker may allow fewer."
    )
    connect_timeout_s: float = Field(
        10.0, gt=0, le=300, allow_inf_nan=False, description="Deadline for a connection to be up (seconds)."
    )

    @model_validator(mode="before")
    @classmethod
    def _port_with_tls(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("tls") is not None:
            return {"port": PORT_TLS, **given}
        return given

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file exclude each other; give one")
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise ValueError("a password needs a username (MQTT 3.1.1 allows none without)")
        return self
