"""`cic control-plane enroll|sites|entitlement|grant-epoch|revoke-key|freeze|unfreeze`."""

import re
from pathlib import Path
from typing import Any

import click
import msgspec

from appliance.commands.control_plane_context import ControlInvocation, actor
from appliance.commands.output import Column, fields_of, print_fields, print_json, print_rows
from appliance.controlplane import authority, enrolment, licences, sites
from appliance.controlplane.documents import newest
from appliance.controlplane.errors import NotPossible
from appliance.controlplane.licences import Terms
from appliance.controlplane.site_view import SiteView, view
from appliance.controlplane.sites import Site
from appliance.domain.clock import iso
from appliance.manifests.documents import Entitlement
from appliance.security.signing import PublicKey

_PLACE = re.compile(r"([1-9][0-9]*)-([1-9][0-9]*)", re.ASCII)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _terms_options(command: Any) -> Any:
    """The options that say what an entitlement grants; None leaves what was granted before."""
    options = (
        click.option("--customer", help="Who is licensed; the site's name if not given."),
        click.option("--expires", metavar="MOMENT", help="2027-11-22T00:00:00.000Z"),
        click.option("--valid-days", type=click.IntRange(min=1), help="Instead of --expires."),
        click.option("--lease-days", type=click.IntRange(1, 3_650), help="Default 30."),
        click.option("--grace-days", type=click.IntRange(0, 3_650), help="Default 14."),
        click.option("--gpus", type=click.IntRange(min=0), help="GPUs licensed; 0: not limited."),
        click.option("--reserved", type=click.IntRange(min=0), help="Reserved tokens a second."),
        click.option("--models", metavar="A,B", help="Models licensed; all if not given."),
        click.option("--offline-days", type=click.IntRange(min=0), help="Longest without report."),
        click.option("--throttle", type=click.IntRange(min=0), help="Tokens/s after the grace."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _terms(base: Terms, given: dict[str, Any]) -> Terms:
    names = {
        "customer": "customer",
        "expires": "expires",
        "valid_days": "valid_days",
        "lease_days": "lease_days",
        "grace_days": "grace_days",
        "gpus": "gpu_count",
        "reserved": "reserved_tokens_per_s",
        "offline_days": "offline_report_days_max",
        "throttle": "throttle_tokens_per_s",
    }
    changes = {names[key]: given[key] for key in names if given[key] is not None}
    if given["valid_days"] is not None:
        changes["expires"] = given["expires"] or ""
    if given["models"] is not None:
        changes["models"] = tuple(one.strip() for one in given["models"].split(",") if one.strip())
    return msgspec.structs.replace(base, **changes)


@click.command()
@click.argument("name")
@_terms_options
@click.option("--ttl", "ttl_days", type=click.IntRange(1, 90), default=7, help="Days of the code.")
@click.option("--request", "request", type=_FILE, help="The site's request, carried by hand.")
@click.option("--public-key", "pem", type=_FILE, help="The site's public key (PEM).")
@click.pass_obj
def enroll(
    invocation: ControlInvocation,
    /,
    name: str,
    ttl_days: int,
    request: Path | None,
    pem: Path | None,
    **given: Any,
) -> None:
    """Let a site in: print a one-time code, or register the key that was carried here."""
    if request is not None and pem is not None:
        raise click.UsageError("Give --request or --public-key, not both.")
    terms = _terms(Terms(customer=given["customer"] or name), given)
    with invocation.plane() as plane:
        act = plane.act(actor())
        if request is None and pem is None:
            code = plane.database.transact(
                lambda c: enrolment.make_code(c, act, name, terms, ttl_days * 86_400)
            )
            _print_code(invocation, code)
            return
        if request is not None:
            raw = request.read_bytes().strip()
            site = plane.database.transact(
                lambda c: enrolment.enrol_by_hand(c, act, name, terms, raw)
            )
        else:
            assert pem is not None  # one of the two is there
            key = PublicKey.from_pem(pem.read_bytes())
            site = plane.database.transact(lambda c: enrolment.register(c, act, name, key, terms))
        shown = plane.database.read(lambda c: view(c, site, act.now_ns))
    _print_site(invocation, shown)


@click.group("sites", invoke_without_command=True)
@click.pass_context
def sites_group(ctx: click.Context) -> None:
    """The sites that report here. Without a command: list them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_sites)


@sites_group.command("list")
@click.pass_obj
def list_sites(invocation: ControlInvocation) -> None:
    """List every site: how far it reported, and what waits."""
    with invocation.plane() as plane:
        now_ns = plane.clock.wall_ns()
        found = plane.database.read(lambda c: [view(c, site, now_ns) for site in sites.every(c)])
    if invocation.json:
        print_json(found)
        return
    columns = (
        Column[SiteView]("NAME", lambda one: one.name),
        Column[SiteView]("ID", lambda one: one.appliance_id),
        Column[SiteView]("STATE", lambda one: one.state),
        Column[SiteView]("EPOCH", lambda one: one.epoch, right=True),
        Column[SiteView]("ACCEPTED", lambda one: one.accepted_through, right=True),
        Column[SiteView]("RECEIVED", lambda one: one.last_received_at),
        Column[SiteView]("WAITING", lambda one: one.waiting, right=True),
        Column[SiteView]("HOLDS", lambda one: one.open_holds, right=True),
    )
    print_rows(found, columns, "No site is enrolled: `cic control-plane enroll NAME`.")


@sites_group.command("show")
@click.argument("site")
@click.pass_obj
def show_site(invocation: ControlInvocation, site: str) -> None:
    """Show one site: its keys, its chain, its licence, what waits for a person."""
    with invocation.plane() as plane:
        now_ns = plane.clock.wall_ns()
        shown = plane.database.read(lambda c: view(c, sites.find(c, site), now_ns))
    _print_site(invocation, shown)


@sites_group.command("set")
@click.argument("site")
@click.option("--name", help="Another name for it.")
@click.option("--lease-days", type=click.IntRange(1, 3_650), help="Of the receipts from now on.")
@click.pass_obj
def set_site(
    invocation: ControlInvocation, site: str, name: str | None, lease_days: int | None
) -> None:
    """Change what is known of a site."""
    if name is None and lease_days is None:
        raise click.UsageError("Say what to change: --name, --lease-days.")
    with invocation.plane() as plane:
        act = plane.act(actor())
        changed = plane.database.transact(
            lambda c: enrolment.change(c, act, site, name, lease_days)
        )
        shown = plane.database.read(lambda c: view(c, changed, act.now_ns))
    _print_site(invocation, shown)


@click.group("entitlement")
def entitlement() -> None:
    """What sites are licensed for."""


@entitlement.command("issue")
@click.argument("site")
@_terms_options
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also into a file.")
@click.pass_obj
def issue(invocation: ControlInvocation, /, site: str, out: Path | None, **given: Any) -> None:
    """Sign a new entitlement; what is not named stays as it was."""
    with invocation.plane() as plane:
        act = plane.act(actor())

        def run(connection: Any) -> tuple[Site, Entitlement]:
            locked = sites.find(connection, site, lock=True)
            before = licences.terms_of(connection, locked.appliance_id)
            terms = _terms(before or Terms(customer=locked.customer), given)
            issued = enrolment.license_again(connection, act, locked, terms)
            return locked, issued

        locked, issued = plane.database.transact(run)
        envelope = plane.database.read(lambda c: newest(c, locked.appliance_id, licences.KIND))
    if out is not None and envelope is not None:
        out.write_bytes(envelope)
    if invocation.json:
        print_json(issued)
    else:
        print_fields(fields_of(issued))


@entitlement.command("show")
@click.argument("site")
@click.pass_obj
def show_entitlement(invocation: ControlInvocation, site: str) -> None:
    """Show the entitlement in force."""
    with invocation.plane() as plane:
        found = plane.database.read(
            lambda c: licences.in_force(c, sites.find(c, site).appliance_id)
        )
    if found is None:
        raise NotPossible(
            "The site has no entitlement.",
            next_step=f"Issue one: `cic control-plane entitlement issue {site}`.",
        )
    if invocation.json:
        print_json(found)
    else:
        print_fields(fields_of(found))


@click.command("grant-epoch")
@click.argument("site")
@click.option("--request", type=_FILE, help="The site's request, with the key it will sign with.")
@click.option("--reason", required=True, help="Why: it is signed and kept.")
@click.pass_obj
def grant_epoch(
    invocation: ControlInvocation, site: str, request: Path | None, reason: str
) -> None:
    """Let a restored or forked site begin a new epoch on the last head that was accepted."""
    with invocation.plane() as plane:
        act = plane.act(actor())

        def run(connection: Any) -> Any:
            key = None
            if request is not None:
                raw = request.read_bytes().strip()
                key = authority.requested_key(connection, site, raw)
            return authority.grant_epoch(connection, act, site, key, reason)

        granted = plane.database.transact(run)
    if invocation.json:
        print_json(granted)
    else:
        click.echo(
            f"Epoch {granted.epoch} begins after {granted.predecessor_epoch}-"
            f"{granted.predecessor_seq}. The site gets the grant by wire, or with what"
            " `cic control-plane export --to DIR` writes."
        )


@click.command("revoke-key")
@click.argument("site")
@click.option("--key-id", required=True, help="The key, or the beginning of its id.")
@click.option("--from", "since", metavar="EPOCH-SEQ", help="Default: the next manifest.")
@click.option("--reason", required=True, help="Why: it is signed and kept.")
@click.pass_obj
def revoke_key(
    invocation: ControlInvocation, site: str, key_id: str, since: str | None, reason: str
) -> None:
    """Refuse what a key signs from now on; what it signed before stands."""
    match = _PLACE.fullmatch(since or "")
    if since is not None and match is None:
        raise click.UsageError("--from is EPOCH-SEQ, as 1-42.")
    place = None if match is None else (int(match[1]), int(match[2]))
    with invocation.plane() as plane:
        act = plane.act(actor())
        revocation = plane.database.transact(
            lambda c: authority.revoke_key(c, act, site, key_id, place, reason)
        )
    if invocation.json:
        print_json(revocation)
    else:
        click.echo(
            f"Key {revocation.key_id} is refused from {revocation.epoch}-{revocation.seq} on."
            " The site goes on with a new key: `cic sync request --new-key` there, then"
            f" `cic control-plane grant-epoch {site} --request FILE`."
        )


@click.command("freeze")
@click.argument("site")
@click.option("--reason", required=True)
@click.pass_obj
def freeze(invocation: ControlInvocation, site: str, reason: str) -> None:
    """Take nothing more from a site until it is freed."""
    with invocation.plane() as plane:
        act = plane.act(actor())
        changed = plane.database.transact(lambda c: authority.freeze(c, act, site, reason))
        shown = plane.database.read(lambda c: view(c, changed, act.now_ns))
    _print_site(invocation, shown)


@click.command("unfreeze")
@click.argument("site")
@click.option("--reason", required=True)
@click.pass_obj
def unfreeze(invocation: ControlInvocation, site: str, reason: str) -> None:
    """Take manifests of a site again; the chain that was accepted stays the true one."""
    with invocation.plane() as plane:
        act = plane.act(actor())
        changed = plane.database.transact(lambda c: authority.unfreeze(c, act, site, reason))
        shown = plane.database.read(lambda c: view(c, changed, act.now_ns))
    _print_site(invocation, shown)


def _print_code(invocation: ControlInvocation, code: enrolment.Code) -> None:
    expires = iso(code.expires_at_ns)
    if invocation.json:
        print_json({"code": code.text, "expires": expires})
        return
    click.echo(code.text)
    click.echo(f"One site may use it once, until {expires}: `cic sync enrol URL CODE`.", err=True)


def _print_site(invocation: ControlInvocation, shown: SiteView) -> None:
    if invocation.json:
        print_json(shown)
        return
    print_fields(fields_of(shown, omit=("keys",)))
    columns = (
        Column[Any]("KEY", lambda one: one.key_id),
        Column[Any]("SINCE", lambda one: one.since),
        Column[Any]("UNTIL", lambda one: one.until),
        Column[Any]("REVOKED", lambda one: one.revoked),
    )
    print_rows(shown.keys, columns, "")
