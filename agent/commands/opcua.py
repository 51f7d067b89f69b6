"""`holdfast opcua`: what OPC UA needs a person for. Approving a server's certificate, and showing our own."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent.commands.options import Assignments, Config, Json, read_configuration
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import run_interruptible
from protocols.program.terminal import clean, print_json, progress

if TYPE_CHECKING:
    from agent.settings import Configuration
    from protocols.field.opcua_settings import Settings

opcua = typer.Typer(no_args_is_help=True, help="Certificates of OPC UA: the servers', and this gateway's own.")

FIRST_POLICY: Literal["Basic256Sha256"] = (
    "Basic256Sha256"  # for a URL alone; the certificate is the same with every policy
)


@opcua.command()
def trust(
    server: Annotated[
        str, typer.Argument(metavar="DEVICE|URL", help="A device of the configuration, or opc.tcp://host:port.")
    ],
    sha256: Annotated[
        str | None,
        typer.Option(
            "--fingerprint", metavar="SHA256", help="Approve this one only, without asking.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve whatever it shows, without asking.")] = False,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Show the certificate of a server, and approve it for the agent."""
    from agent import drivers
    from protocols.field.opcua_trust import TrustError, approve, approved, fingerprint, same

    configuration = read_configuration(config, assignments)
    where, settings = _server(configuration, server)
    directory = drivers.files(configuration.settings.data_dir, "opcua")
    with progress(f"asking {settings.endpoint}"):
        der, offers = run_interruptible(_shown(settings, where))
    facts = {"endpoint": settings.endpoint, "sha256": fingerprint(der), **_facts(der), "offers": offers}
    try:
        before = approved(directory, settings.endpoint)
        known = before is not None and same(before.sha256, facts["sha256"])
        if not known:
            if sha256 is not None and not same(sha256, facts["sha256"]):
                raise Failure(f"{where}: it shows another certificate: SHA-256 {facts['sha256']}; nothing approved", 1)
            if sha256 is None and not yes:
                _ask(facts, before.sha256 if before else "", as_json)
            approve(directory, settings.endpoint, der, facts["subject"], datetime.now(UTC))
    except TrustError as error:
        raise Failure(str(error), UNAVAILABLE) from error
    if as_json:
        print_json({**facts, "approved": True, "was_approved": known})
    else:
        typer.echo(f"{settings.endpoint}: SHA-256 {facts['sha256']}")
        typer.echo("It was approved before." if known else "Approved. A running agent connects by itself, within 30 s.")


@opcua.command()
def certificate(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> None:
    """Show this gateway's own certificate, for the servers to trust; it is made if there is none yet."""
    from agent import drivers
    from protocols.field.opcua_identity import IdentityError, identities

    configuration = read_configuration(config, assignments)
    try:
        own = identities(drivers.files(configuration.settings.data_dir, "opcua"), datetime.now(UTC))[0]
    except ImportError:
        raise Failure(_NO_PACKAGE, UNAVAILABLE) from None
    except IdentityError as error:
        raise Failure(str(error), UNAVAILABLE) from error
    ends = own.certificate.not_valid_after_utc.date().isoformat()
    if as_json:
        plain = {
            "file": str(own.public),
            "sha256": own.fingerprint,
            "application_uri": own.application_uri,
            "ends": ends,
        }
        print_json(plain)
        return
    typer.echo(f"file             {own.public}")
    typer.echo(f"SHA-256          {own.fingerprint}")
    typer.echo(f"application URI  {own.application_uri}")
    typer.echo(f"ends             {ends}; it is renewed 90 days before")


_NO_PACKAGE = "OPC UA needs the package asyncua, which is not installed here: pip install 'holdfast[opcua]'"


def _server(configuration: Configuration, server: str) -> tuple[str, Settings]:
    """Its name for messages, and its settings."""
    from pydantic import ValidationError

    from agent.commands.plan import known_device
    from protocols.field.opcua_settings import Settings

    if "://" in server:
        try:
            settings = Settings(url=server, security_policy=FIRST_POLICY)
        except ValidationError as error:
            raise Failure(str(error.errors()[0]["msg"]).removeprefix("Value error, "), USAGE) from None
        return settings.endpoint, settings
    device = known_device(configuration, server)
    if not isinstance(device.settings, Settings):
        raise Failure(f"{server} is no OPC UA device; its protocol is {device.protocol}", USAGE)
    return f"{device.name} (opcua {device.settings.endpoint})", device.settings


async def _shown(settings: Settings, where: str) -> tuple[bytes, str]:
    """The certificate (DER) that the server shows now, and what security it offers. Raises Failure."""
    from protocols.field.contract import FieldError

    try:
        from protocols.field.opcua_security import certificate_shown, endpoints, offered
    except ImportError:
        raise Failure(_NO_PACKAGE, UNAVAILABLE) from None
    try:
        found = await endpoints(settings, where, lambda: None)
    except FieldError as error:
        raise Failure(str(error), UNAVAILABLE) from error
    der = certificate_shown(found, settings)
    if der is None:
        raise Failure(f"{where}: the server shows no certificate; it offers: {clean(offered(found))}", UNAVAILABLE)
    return der, offered(found)


def _facts(der: bytes) -> dict[str, Any]:
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(der)
        return {
            "subject": found.subject.rfc4514_string(),
            "issuer": found.issuer.rfc4514_string(),
            "begins": found.not_valid_before_utc.date().isoformat(),
            "ends": found.not_valid_after_utc.date().isoformat(),
        }
    except ValueError as error:
        raise Failure(
            f"the server's certificate cannot be read ({error}); let it make a new one", UNAVAILABLE
        ) from error


def _ask(facts: dict[str, Any], before: str, as_json: bool) -> None:
    """Show it to whoever is there. Raises Failure unless they agree."""
    if as_json or not sys.stdin.isatty():
        text = f"add --fingerprint {facts['sha256']} to approve it, once it was compared with the server's own display"
        raise Failure(f"nobody is here to agree; {text}", USAGE)
    for key in ("endpoint", "subject", "issuer", "begins", "ends", "sha256", "offers"):
        typer.echo(f"{key:<9} {clean(str(facts[key]))}", err=True)
    if before:
        typer.echo(f"IT HAS CHANGED: approved was {before}", err=True)
    if not typer.confirm("Is this the SHA-256 that the server itself shows?", default=False, err=True):
        raise Failure("nothing was approved", 1)
