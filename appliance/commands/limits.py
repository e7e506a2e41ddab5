"""`cic limit`, and the options that set limits."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import click
import msgspec

from appliance.commands.client import AdminClient
from appliance.commands.output import Column, print_json, print_rows
from appliance.wire.admin import LayerReport, LimitsSet
from appliance.wire.command import CommandError, ExitCode, Invocation

LayerName = Literal["global", "tenant", "environment", "key"]

_MULTIPLES: Final = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


class LimitValue(click.ParamType[int]):
    """A whole number above zero; `100k` and `10M` are understood."""

    name = "N"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        digits = value[:-1] if value[-1:].lower() in _MULTIPLES else value
        if not (digits.isascii() and digits.isdecimal()) or int(digits) == 0:
            self.fail(f"{value!r} is no limit: write a number above 0, or 100k, 10M.", param, ctx)
        return int(digits) * _MULTIPLES.get(value[-1:].lower(), 1)


class ChangedLimit(click.ParamType[int | str]):
    """As LimitValue, or `none` to take the limit away."""

    name = "N|none"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        return "none" if value == "none" else LimitValue().convert(value, param, ctx)


def limit_options(kind: click.ParamType[Any]) -> Callable[[Callable[..., Any]], Any]:
    """--rpm, --tpm, --tpd and --concurrency."""

    def add(command: Callable[..., Any]) -> Any:
        for flag, meaning in (
            ("--concurrency", "Requests at work at once."),
            ("--tpd", "Tokens in 24 hours."),
            ("--tpm", "Tokens a minute."),
            ("--rpm", "Requests a minute."),
        ):
            command = click.option(flag, type=kind, help=meaning)(command)
        return command

    return add


def scope_options(command: Callable[..., Any]) -> Any:
    command = click.option("--key", help="A key's id or name.")(command)
    command = click.option("--env", "environment", help="An environment's id or name.")(command)
    return click.option("--tenant", help="A tenant's id or name.")(command)


@click.group()
def limit() -> None:
    """Limits of the site, a tenant, an environment or a key. A request passes all four."""


@limit.command("set")
@click.option("--global", "whole_site", is_flag=True, help="The layer that all requests pass.")
@scope_options
@limit_options(ChangedLimit())
@click.pass_obj
def set_limits(
    invocation: Invocation,
    /,
    tenant: str | None,
    environment: str | None,
    key: str | None,
    *,
    whole_site: bool,
    **values: int | str | None,
) -> None:
    """Set limits of one layer: the narrowest that is named.

    What is not named stays as it is; `none` takes a limit away.
    """
    if all(value is None for value in values.values()):
        raise CommandError(
            "No limit is named.",
            next_step="Name --rpm, --tpm, --tpd or --concurrency; `none` takes one away.",
            exit_code=ExitCode.USAGE,
        )
    body = LimitsSet(
        layer=layer_named(tenant, environment, key, whole_site=whole_site),
        tenant=tenant,
        environment=environment,
        key=key,
        requests_per_min=_changed(values["rpm"]),
        tokens_per_min=_changed(values["tpm"]),
        tokens_per_day=_changed(values["tpd"]),
        concurrency=_changed(values["concurrency"]),
    )
    with AdminClient(invocation.home) as client:
        rows = client.send("PUT", "/v1/limits", list[LayerReport], body)
    print_layers(invocation, rows)


@limit.command("show")
@scope_options
@click.pass_obj
def show_limits(
    invocation: Invocation, tenant: str | None, environment: str | None, key: str | None
) -> None:
    """Show the limits in force, where they come from, and what is used of them now."""
    query = {"tenant": tenant, "environment": environment, "key": key}
    with AdminClient(invocation.home) as client:
        rows = client.get("/v1/limits", list[LayerReport], query)
    print_layers(invocation, rows)


def layer_named(
    tenant: str | None, environment: str | None, key: str | None, *, whole_site: bool
) -> LayerName:
    """The narrowest layer that is named. Raises CommandError when it is none, or two things."""
    named: LayerName | None = (
        "key" if key else "environment" if environment else "tenant" if tenant else None
    )
    if whole_site == (named is not None):
        raise CommandError(
            "It must be clear whose limits are set.",
            next_step="Name --tenant, --env or --key; or --global, alone.",
            exit_code=ExitCode.USAGE,
        )
    return named or "global"


def print_layers(invocation: Invocation, rows: Sequence[LayerReport]) -> None:
    if invocation.json:
        print_json(rows)
        return
    columns: list[Column[LayerReport]] = [
        Column("LAYER", lambda row: row.layer),
        Column("NAME", lambda row: row.name),
    ]
    for title, field in (
        ("REQUESTS/MIN", "requests_per_min"),
        ("TOKENS/MIN", "tokens_per_min"),
        ("TOKENS/DAY", "tokens_per_day"),
        ("CONCURRENCY", "concurrency"),
    ):
        columns.append(Column(title, lambda row, field=field: used_of(row, field), right=True))  # type: ignore[misc]  # the default binds the loop's value
    columns.append(Column("SOURCE", lambda row: row.source))
    print_rows(rows, columns, "No limits.")


def used_of(row: LayerReport, field: str) -> str | None:
    """`12/60`: used and limit; None where nothing is limited."""
    limit_value = getattr(row.limits, field)
    if limit_value is None:
        return None
    used = getattr(row.used, field)
    return f"{limit_value:,}" if used is None else f"{used:,}/{limit_value:,}"


def _changed(value: int | str | None) -> int | msgspec.UnsetType | None:
    if value is None:
        return msgspec.UNSET
    return None if isinstance(value, str) else value
