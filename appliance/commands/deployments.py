"""`cic deployment`: models at work. What clients ask for is a deployment's name."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Final, get_args

import click

from appliance.commands.client import HASH_TIMEOUT_S, AdminClient, object_path
from appliance.commands.context import Refused, absolute
from appliance.commands.engine_options import (
    changed_settings,
    engine_options,
    new_settings,
    placement_options,
)
from appliance.commands.engine_traces import show_dumps, show_logs
from appliance.commands.noun import Noun, add_common
from appliance.commands.output import (
    Column,
    fields_of,
    print_fields,
    print_json,
    print_rows,
    progress,
)
from appliance.commands.tenants import words
from appliance.domain.usage import Operation
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.fleet import Deployment, DeploymentCreate, DeploymentUpdate, EngineName, Replica
from appliance.wire.placement import Explanation, NodeVerdict

POLL_S: Final = 0.25
API_KEY_VARIABLE: Final = "CIC_ENGINE_API_KEY"


def ready_of(row: Deployment) -> str:
    """`1/2`: replicas that are ready, and wanted."""
    return f"{sum(replica.state == 'ready' for replica in row.replicas)}/{row.replicas_wanted}"


def show_deployment(row: Deployment) -> None:
    print_fields(fields_of(row, omit=("replicas",)))
    if row.replicas:
        click.echo()
        print_rows(row.replicas, REPLICA_COLUMNS, "")


REPLICA_COLUMNS: Final[tuple[Column[Replica], ...]] = (
    Column("REPLICA", lambda row: row.id),
    Column("NODE", lambda row: row.node),
    Column("STATE", lambda row: row.state),
    Column("GENERATION", lambda row: row.generation, right=True),
    Column("GPUS", lambda row: row.gpus),
    Column("ADDRESS", lambda row: row.address),
    Column("PID", lambda row: None if row.pid is None else str(row.pid)),
    Column("RESTARTS", lambda row: row.restarts, right=True),
    Column("RUNNING", lambda row: row.requests_running, right=True),
    Column("TOKENS/S", lambda row: row.tokens_per_s, right=True),
    Column("REASON", lambda row: row.reason),
)
VERDICT_COLUMNS: Final[tuple[Column[NodeVerdict], ...]] = (
    Column("NODE", lambda row: row.node),
    Column("CHOSEN", lambda row: "yes" if row.chosen else "no"),
    Column("RUNNING", lambda row: row.running, right=True),
    Column("SCORE", lambda row: row.score, right=True),
    Column("WHY", lambda row: "; ".join(row.reasons)),
)
DEPLOYMENT: Final = Noun(
    word="deployment",
    collection="deployments",
    answer=Deployment,
    columns=(
        Column("NAME", lambda row: row.name),
        Column("ENGINE", lambda row: row.engine),
        Column("STATE", lambda row: row.state),
        Column("REPLICAS", ready_of, right=True),
        Column("REGION", lambda row: row.region),
        Column("SOURCE", lambda row: row.model or row.url),
        Column("REASON", lambda row: row.reason),
        Column("ID", lambda row: row.id),
    ),
    show=show_deployment,
)


@click.group()
def deployment() -> None:
    """Deployments: a model, an engine, settings and replicas; clients ask for its name."""


@deployment.command("create")
@click.option("--name", required=True, help="What clients write as `model`.")
@click.option("--engine", type=click.Choice(get_args(EngineName)), required=True)
@click.option("--model", "source", metavar="PATH|MODEL", help="A registered model, or its path.")
@click.option("--url", help="external: base URL of an OpenAI-compatible engine.")
@click.option(
    "--api-key",
    help=f"external: its key; `-` reads it from standard input. Also {API_KEY_VARIABLE}.",
)
@click.option("--upstream-model", help="external: the engine's own name of the model.")
@click.option("--operations", metavar="A,B", help=f"Of {', '.join(Operation)}.")
@click.option("--replicas", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--parallel", type=click.IntRange(min=1), default=4, show_default=True, help="Requests at once."
)
@click.option("--context", type=click.IntRange(min=1), help="Tokens of one request.")
@click.option("--embedding", is_flag=True, help="The model makes embeddings.")
@click.option("--region", help="Default: the site's region.")
@engine_options
@placement_options
@click.option("--wait", is_flag=True, help="Return when it is ready, or cannot become so.")
@click.option(
    "--wait-timeout", type=click.IntRange(min=1), default=600, show_default=True, metavar="SECONDS"
)
@click.pass_obj
def create_deployment(
    invocation: Invocation,
    /,
    name: str,
    engine: EngineName,
    source: str | None,
    url: str | None,
    api_key: str | None,
    upstream_model: str | None,
    operations: str | None,
    replicas: int,
    parallel: int,
    context: int | None,
    region: str | None,
    wait_timeout: int,
    *,
    embedding: bool,
    wait: bool,
    **options: Any,
) -> None:
    """Deploy a model."""
    require_source(engine, source, url)
    if api_key is None and engine == "external":
        api_key = os.environ.get(API_KEY_VARIABLE)
    body = DeploymentCreate(
        name=name,
        engine=engine,
        model=None if source is None else path_or_name(source),
        url=url,
        api_key=secret_from(api_key),
        upstream_model=upstream_model,
        replicas=replicas,
        parallel=parallel,
        context_tokens=context,
        embedding=embedding,
        operations=None if operations is None else words(operations),
        region=region,
        settings=new_settings(options),
        strategy=options["strategy"] or "auto",
        pins=tuple(words(options["pin"] or "")),
        idle_s=options["idle_unload"] or None,
    )
    with AdminClient(invocation.home, timeout_s=HASH_TIMEOUT_S) as client:
        with progress(f"Deploying {name} …"):
            item = client.send("POST", "/v1/deployments", Deployment, body)
        if wait:
            item = wait_ready(client, item, wait_timeout)
    DEPLOYMENT.print(invocation, item)


@deployment.command("update")
@click.argument("ref")
@click.option("--model", "source", metavar="PATH|MODEL", help="Other weights under the same name.")
@click.option("--replicas", type=click.IntRange(min=0))
@click.option("--parallel", type=click.IntRange(min=1), help="Requests at once.")
@click.option("--context", type=click.IntRange(min=1), help="Tokens of one request.")
@click.option("--url", help="external: base URL.")
@click.option("--api-key", help='external: `-` reads it from standard input; "" takes it away.')
@click.option("--upstream-model", help='external; "" takes it away.')
@click.option("--operations", metavar="A,B")
@engine_options
@placement_options
@click.option("--wait", is_flag=True, help="Return when all its replicas are of the change.")
@click.option(
    "--wait-timeout", type=click.IntRange(min=1), default=600, show_default=True, metavar="SECONDS"
)
@click.pass_obj
def update_deployment(
    invocation: Invocation,
    /,
    ref: str,
    source: str | None,
    replicas: int | None,
    parallel: int | None,
    context: int | None,
    url: str | None,
    api_key: str | None,
    upstream_model: str | None,
    operations: str | None,
    wait_timeout: int,
    *,
    wait: bool,
    **options: Any,
) -> None:
    """Change the deployment REF, an id or a name. Replicas are replaced where that is needed."""
    pins = options["pin"]
    body = DeploymentUpdate(
        replicas=replicas,
        model=None if source is None else path_or_name(source),
        parallel=parallel,
        context_tokens=context,
        url=url,
        api_key=secret_from(api_key),
        upstream_model=upstream_model,
        operations=None if operations is None else words(operations),
        settings=changed_settings(options),
        strategy=options["strategy"],
        pins=None if pins is None else words(pins),
        idle_s=options["idle_unload"],
    )
    if body == DeploymentUpdate() and not wait:
        raise _nothing_to_change()
    with AdminClient(invocation.home, timeout_s=HASH_TIMEOUT_S) as client:
        item = client.send("PATCH", object_path("deployments", ref), Deployment, body)
        if wait:
            item = wait_ready(client, item, wait_timeout)
    DEPLOYMENT.print(invocation, item)


def _nothing_to_change() -> Refused:
    known = click.get_current_context().command.params
    names = [option.opts[0] for option in known if isinstance(option, click.Option)]
    return Refused(
        "usage",
        "Nothing to change was named.",
        next_step=f"Options: {', '.join(name for name in names if not name.startswith('--wait'))}.",
        exit_code=ExitCode.USAGE,
    )


@deployment.command("explain")
@click.argument("ref")
@click.pass_obj
def explain_deployment(invocation: Invocation, ref: str) -> None:
    """Why the replicas of REF run where they do: what each node had to offer to one.

    As if none of them had a place yet, so that a node that was chosen is not shown as full.
    """
    with AdminClient(invocation.home) as client:
        item = client.get(object_path("deployments", ref, "explain"), Explanation)
    if invocation.json:
        print_json(item)
        return
    need = "not known: its model's files cannot be read" if item.need is None else item.need.text
    print_fields((("deployment", item.deployment), ("a replica needs", need)))
    click.echo()
    print_rows(item.nodes, VERDICT_COLUMNS, "No nodes yet.")
    if item.reason:
        click.echo(f"\n{item.reason}")
    if item.arguments:
        click.echo(f"\nA start of {item.engine} is told: {shlex.join(item.arguments)}")
    for command in item.commands:
        click.echo(f"\nRuns: {shlex.join(command)}")


@deployment.command("scale")
@click.argument("ref")
@click.argument("replicas", type=click.IntRange(min=0))
@click.pass_obj
def scale_deployment(invocation: Invocation, ref: str, replicas: int) -> None:
    """Give the deployment REF so many replicas."""
    _patch(invocation, ref, DeploymentUpdate(replicas=replicas))


@deployment.command("pin")
@click.argument("ref")
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@click.pass_obj
def pin_deployment(invocation: Invocation, ref: str, nodes: tuple[str, ...]) -> None:
    """Run the deployment REF on these nodes only; without a NODE, on any again."""
    _patch(invocation, ref, DeploymentUpdate(pins=list(nodes)))


def _patch(invocation: Invocation, ref: str, body: DeploymentUpdate) -> None:
    with AdminClient(invocation.home) as client:
        item = client.send("PATCH", object_path("deployments", ref), Deployment, body)
    DEPLOYMENT.print(invocation, item)


def require_source(engine: EngineName, source: str | None, url: str | None) -> None:
    """Raises CommandError when the option that the engine cannot do without is missing."""
    needed, given = ("--url", url) if engine == "external" else ("--model", source)
    if given is None:
        raise Refused(
            "usage",
            f"The engine {engine} needs {needed}.",
            next_step="`cic deployment create --help` shows what each engine takes.",
            exit_code=ExitCode.USAGE,
        )


def path_or_name(source: str) -> str:
    """A path is made absolute; the name of a model that is registered stays a name."""
    looks_like_path = os.sep in source or source.endswith(".gguf") or Path(source).is_file()
    return absolute(source) if looks_like_path else source


def secret_from(option: str | None) -> str | None:
    """The secret an option stands for: `-` is standard input, which no list of processes shows."""
    return sys.stdin.readline().rstrip("\r\n") if option == "-" else option


def wait_ready(client: AdminClient, item: Deployment, timeout_s: float) -> Deployment:
    """Poll until the deployment is ready, all of it as it was changed last.

    Raises CommandError when it failed or took too long.
    """
    deadline = time.monotonic() + timeout_s
    with progress(f"{item.name}: {item.state} …") as show:
        while item.state != "ready" or any(r.generation < item.generation for r in item.replicas):
            if item.state in ("failed", "suspended") or time.monotonic() > deadline:
                reason = item.reason.rstrip(".") or "no reason is known"
                raise CommandError(
                    f"The deployment {item.name} is {item.state}: {reason}.",
                    next_step=f"`cic deployment show {item.name}` tells of its replicas.",
                )
            time.sleep(POLL_S)
            item = client.get(object_path("deployments", item.id), Deployment)
            show(f"{item.name}: {item.state} {item.reason} …")
    return item


add_common(deployment, DEPLOYMENT)
deployment.add_command(show_logs)
deployment.add_command(show_dumps)
