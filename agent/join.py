"""`cic agent join`: makes this host a node of a site."""

import asyncio
import json
import re
import socket
from typing import Final

import click

from agent import joining
from agent.errors import ApplianceAway, ApplianceRefused, BadToken, WrongSite
from agent.identity import fresh_key, load_identity, prepare_folder, save_identity
from appliance.domain.clock import iso
from appliance.wire.command import CommandError, ExitCode, Invocation

_NAME_CHARS_MAX: Final = 63
_UNFIT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")


class JoinFailed(CommandError):
    """Nothing was joined. `wire_code` is the appliance's own where it said no."""

    def __init__(self, error: BadToken | ApplianceAway | ApplianceRefused | WrongSite) -> None:
        exit_code = ExitCode.FAILED
        if isinstance(error, BadToken):
            exit_code = ExitCode.USAGE
        elif isinstance(error, ApplianceAway):
            exit_code = ExitCode.UNREACHABLE
        super().__init__(error.message, next_step=error.next_step, exit_code=exit_code)
        self.wire_code = error.refusal if isinstance(error, ApplianceRefused) else error.code


@click.command()
@click.option("--server", required=True, metavar="URL", help="Of the site's node API.")
@click.option(
    "--token",
    required=True,
    envvar="CIC_JOIN_TOKEN",
    help="From `cic node token create` on the appliance; good once.",
)
@click.option("--name", help="Name of this node. Default: the token's, or the host's name.")
@click.option("--force", is_flag=True, help="Leave the site this host has joined before.")
@click.pass_obj
def join(invocation: Invocation, server: str, token: str, name: str | None, *, force: bool) -> None:
    """Make this host a node of a site.

    The CA at the server is compared with the token before anything secret is sent. The node makes
    its own key, and gets a certificate that its agent renews. Then start the agent: `cic agent`.
    """
    state = invocation.home.agent_state
    known = load_identity(state)
    if known is not None and not force:
        raise CommandError(
            f"This host is the node {known.about.node_name!r} of {known.about.server} already.",
            next_step="Start its agent with `cic agent`, or join anew with --force.",
            exit_code=ExitCode.CONFLICT,
        )
    key = fresh_key()
    try:
        prepare_folder(state)  # before the token is used up
        parsed, base = joining.read_token(token), joining.base_url(server)
        joined = asyncio.run(joining.join(base, parsed, name or "", host_name(), key.csr_pem))
        identity = save_identity(state, base, key, joined)
    except (BadToken, ApplianceAway, ApplianceRefused, WrongSite) as error:
        raise JoinFailed(error) from error
    except OSError as error:
        raise CommandError(
            f"The identity of this node cannot be kept in {state}: {error}.",
            next_step="Give the home to this account, or name another with --home.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error
    facts = {
        "node": joined.node_name,
        "node_id": joined.node_id,
        "site": joined.site,
        "server": base,
        "certificate_until": iso(identity.life().end_s * 1_000_000_000),
    }
    if invocation.json:
        click.echo(json.dumps(facts))
    else:
        click.echo(f"This host is the node {joined.node_name} of the site {joined.site} now.")
        click.echo(f"Start its agent: {_agent_command(invocation)}")


def _agent_command(invocation: Invocation) -> str:
    return " ".join(("cic", *invocation.home.arguments, "agent"))


def host_name() -> str:
    """The host's name, in the letters that names of nodes have."""
    name = _UNFIT_IN_NAMES.sub("-", socket.gethostname()).strip("._-")
    return name[:_NAME_CHARS_MAX] or "node"
