"""`cic model`: named weights on this site."""

from typing import Final

import click

from appliance.commands.client import HASH_TIMEOUT_S, AdminClient, object_path
from appliance.commands.context import absolute
from appliance.commands.model_packs import (
    import_pack,
    list_catalogue,
    pack_model,
    sweep_store,
)
from appliance.commands.noun import Noun, add_common
from appliance.commands.output import Column, progress
from appliance.wire.command import Invocation
from appliance.wire.fleet import Model, ModelCreate, ModelUpdate

MODEL: Final = Noun(
    word="model",
    collection="models",
    answer=Model,
    columns=(
        Column("NAME", lambda row: row.name),
        Column("BYTES", lambda row: row.size_bytes, right=True),
        Column("FAMILY", lambda row: row.family),
        Column("LICENCE", lambda row: row.licence),
        Column("STATE", lambda row: row.state),
        Column("PATH", lambda row: row.path),
        Column("ID", lambda row: row.id),
    ),
)


@click.group()
def model() -> None:
    """Models: named weights on this site."""


@model.command("create")
@click.argument("name", required=False)
@click.option(
    "--path",
    required=True,
    help="A .gguf file, or a folder with safetensors, on the appliance's host.",
)
@click.option("--family", default="", help="For people: llama, qwen, …")
@click.option("--licence", default="", help="For people: Apache-2.0, …")
@click.pass_obj
def create_model(
    invocation: Invocation, name: str | None, path: str, family: str, licence: str
) -> None:
    """Register a model where it is: it is read and hashed. NAME defaults to the file's."""
    body = ModelCreate(name=name, path=absolute(path), family=family, licence=licence)
    with (
        AdminClient(invocation.home, timeout_s=HASH_TIMEOUT_S) as client,
        progress(f"Reading {body.path} …"),
    ):
        item = client.send("POST", "/v1/models", Model, body)
    MODEL.print(invocation, item)


@model.command("update")
@click.argument("ref")
@click.option("--name", help="Its new name.")
@click.option("--family")
@click.option("--licence")
@click.pass_obj
def update_model(
    invocation: Invocation, ref: str, name: str | None, family: str | None, licence: str | None
) -> None:
    """Change what is noted of a model. REF is its id or name."""
    body = ModelUpdate(name=name, family=family, licence=licence)
    with AdminClient(invocation.home) as client:
        item = client.send("PATCH", object_path("models", ref), Model, body)
    MODEL.print(invocation, item)


add_common(model, MODEL)
for _command in (list_catalogue, pack_model, import_pack, sweep_store):
    model.add_command(_command)
