"""`holdfast-cloud tenant …` and `plant …`: who may send, and from where. No message ever makes one of these."""

from __future__ import annotations

from typing import Annotated

import typer

from cloud.commands.options import Assignments, Config, Json, name, opened
from protocols.program.console import table
from protocols.program.terminal import print_json

tenants = typer.Typer(no_args_is_help=True, help="Tenants: whose plants they are.")
plants = typer.Typer(no_args_is_help=True, help="Plants: where machines and gateways stand.")

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="Name of the tenant.")]


@tenants.command("add")
def add_tenant(tenant: Tenant, config: Config = None, assignments: Assignments = None, as_json: Json = False) -> None:
    """Add a tenant."""
    name(tenant, "tenant")
    with opened(config, assignments) as store:
        store.add_tenant(tenant)
    if as_json:
        print_json({"tenant": tenant})
    else:
        typer.echo(f"Tenant {tenant} is added. Next: holdfast-cloud plant add {tenant} PROVINCE PLANT")


@tenants.command("list")
def list_tenants(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> None:
    """List the tenants, with how many plants each has."""
    with opened(config, assignments) as store:
        found, places = store.tenants(), store.plants()
    rows = [(tenant, sum(plant.tenant == tenant for plant in places)) for tenant in found]
    if as_json:
        print_json({"tenants": [{"tenant": tenant, "plants": count} for tenant, count in rows]})
    elif rows:
        table(["tenant", ">plants"], rows)
    else:
        typer.echo("There is no tenant yet. Add one with: holdfast-cloud tenant add NAME")


@plants.command("add")
def add_plant(
    tenant: Tenant,
    province: Annotated[str, typer.Argument(metavar="PROVINCE", help="Province or region of the plant.")],
    plant: Annotated[str, typer.Argument(metavar="PLANT", help="Name of the plant.")],
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Add a plant to a tenant."""
    from protocols.uplink.topics import Plant

    added = Plant(name(tenant, "tenant"), name(province, "province"), name(plant, "plant"))
    with opened(config, assignments) as store:
        store.add_plant(added)
        waiting = len(store.waiting())
    if as_json:
        print_json({"plant": str(added)})
        return
    typer.echo(f"Plant {added} is added. Its gateways and machines appear with their first message.")
    if waiting:
        typer.echo(
            f"{waiting} dead letters wait; those of this plant can be stored now: holdfast-cloud dlq replay --all"
        )


@plants.command("list")
def list_plants(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> None:
    """List the plants, with how many gateways and machines each has."""
    with opened(config, assignments) as store:
        found, gateways, machines = store.plants(), store.gateways(), store.machines()
    rows = [
        (
            str(plant),
            sum(gateway.plant == plant for gateway in gateways),
            sum(machine.plant == plant for machine in machines),
        )
        for plant in found
    ]
    if as_json:
        print_json({"plants": [{"plant": plant, "gateways": g, "machines": m} for plant, g, m in rows]})
    elif rows:
        table(["plant", ">gateways", ">machines"], rows)
    else:
        typer.echo("There is no plant yet. Add one with: holdfast-cloud plant add TENANT PROVINCE PLANT")
