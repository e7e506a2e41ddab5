"""`cic demo`: a site of one's own in one command, from nothing to a metered completion.

Everything goes the way a customer goes: the site is started as `cic serve --with-agent`, configured
through the admin API, and asked through the endpoint on the LAN with an API key.
"""

import contextlib
import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import httpx
import msgspec
from rich.console import Console
from rich.markup import escape

from appliance.commands.client import AdminClient, object_path
from appliance.commands.context import cic_line
from appliance.wire import admin, fleet
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import Home

CHAT: Final = "smollm2-135m-instruct"
EMBEDDING: Final = "all-minilm-l6-v2"
TENANT: Final = "demo"
ENVIRONMENT: Final = "dev"
KEY: Final = "demo"
QUESTION: Final = "What is the capital of France? Answer in one short sentence."
# Without a system prompt this model answers gibberish at temperature 0 (seen with SmolLM2-135M).
SYSTEM: Final = "You are a helpful assistant."
LISTEN: Final = "127.0.0.1:8080"
START_S: Final = 60.0
READY_S: Final = 300.0
ANSWER_S: Final = 120.0
POLL_S: Final = 0.2
STOP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Metered:
    """An answer of the endpoint, and the record the ledger has of it."""

    text: str
    record: admin.LedgerRow


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: Path(sys.prefix) / "share" / "crosslogic" / "models",
    help="Folder with the demo's model files. Default: where `make demo` puts them.",
)
@click.option("--listen", metavar="HOST:PORT", help=f"Default: {LISTEN}, or a free port.")
@click.option(
    "--once", is_flag=True, envvar="ONCE", help="End after the answer instead of serving on."
)
@click.pass_obj
def demo(invocation: Invocation, models: Path, listen: str | None, *, once: bool) -> None:
    """Start a site here and talk to a real model, metered.

    Makes the home if there is none, starts the appliance with an agent on this host, waits for the
    model, sends one streamed chat completion and one embedding through the endpoint, and prints the
    answer with its ledger record. Then it serves on until Ctrl-C. A second run uses what is there.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    files = find_models(models)
    # SIGTERM ends the demo as Ctrl-C does, so that the site it started is not left behind. A shell
    # starts what a script runs in the background with SIGINT ignored; whoever sends it means it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with site_running(invocation.home, listen, console) as client:
        secret = prepare(client, files, console)
        endpoint = client.get("/v1/status", admin.SiteStatus).endpoint
        wait_ready(client, tuple(files), console)
        with httpx.Client(
            base_url=endpoint, headers={"authorization": f"Bearer {secret}"}, timeout=ANSWER_S
        ) as lan:
            chat = metered(client, *ask(lan, console))
            embedding = metered(client, *embed(lan))
        if invocation.json:
            click.echo(msgspec.json.encode(summary(endpoint, secret, chat, embedding)))
        else:
            show(console, invocation.home, endpoint, secret, chat, embedding)
        if once:
            console.print("ends     after the answer; `make demo` without ONCE=1 serves on")
        else:
            serve_on(console, endpoint)


def find_models(folder: Path) -> dict[str, Path]:
    """The demo's model files by deployment name. Raises CommandError naming what is missing."""
    files = {name: folder / f"{name}.gguf" for name in (CHAT, EMBEDDING)}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise CommandError(
            f"The demo's models are not there: {', '.join(missing)}.",
            next_step="Type `make demo` in the source tree, which brings them, or name their folder"
            " with --models.",
            exit_code=ExitCode.CONFIGURATION,
        )
    return files


@contextlib.contextmanager
def site_running(home: Home, listen: str | None, console: Console) -> Iterator[AdminClient]:
    """A client of this home's appliance, which is started here unless it runs already."""
    cic = [sys.executable, "-m", "appliance.cli", *home.arguments]
    if not home.config_file.exists():
        made = subprocess.run([*cic, "init"], check=False, stdout=subprocess.DEVNULL)
        if made.returncode:
            sys.exit(made.returncode)  # it has said why
        console.print(f"made     a new site in {home.config}")
    if alive(home):
        console.print("uses     the appliance that runs here already")
        with AdminClient(home, timeout_s=READY_S) as client:
            yield client
        return
    home.logs.mkdir(parents=True, exist_ok=True)
    log_file = home.logs / "serve.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [*cic, "serve", "--with-agent", "--listen", listen or free_address()],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends the site in order
        )
    try:
        wait_alive(home, process, log_file, console)
        with AdminClient(home, timeout_s=READY_S) as client:
            yield client
    finally:
        stop(process, console)


def free_address() -> str:
    """LISTEN, or any free port of the same host when somebody else has it."""
    host, port = LISTEN.rsplit(":", 1)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return LISTEN


def alive(home: Home) -> bool:
    """Whether an appliance answers on the admin socket of this home."""
    try:
        with AdminClient(home) as client:
            return client.get("/v1/status", admin.SiteStatus).ready
    except CommandError:
        return False


def wait_alive(
    home: Home, process: subprocess.Popen[bytes], log_file: Path, console: Console
) -> None:
    """Return when the appliance answers. Raises CommandError with the end of its log if it ends."""
    deadline = time.monotonic() + START_S
    with console.status("starts   the appliance …"):
        while not alive(home):
            if process.poll() is not None:
                last = log_file.read_text(errors="replace").strip().splitlines()[-1:]
                raise CommandError(
                    f"The appliance ended with exit code {process.returncode}: {''.join(last)}",
                    next_step=f"Its whole log is {log_file}.",
                )
            if time.monotonic() > deadline:
                raise CommandError(
                    f"The appliance was not ready within {START_S:.0f} s.",
                    next_step=f"Look at its log, {log_file}.",
                )
            time.sleep(POLL_S)
    console.print(f"runs     the appliance (pid {process.pid}, log {log_file})")


def prepare(client: AdminClient, files: dict[str, Path], console: Console) -> str:
    """Make what the demo needs and is not there yet; the answer is an API key's secret.

    A secret is kept nowhere, so a later run rotates the key: the secret printed before goes on for
    a day.
    """
    in_tenant = {"tenant": TENANT, "environment": ENVIRONMENT}
    if not any(row.name == TENANT for row in client.get("/v1/tenants", list[admin.Tenant])):
        client.send("POST", "/v1/tenants", admin.Tenant, admin.TenantCreate(name=TENANT))
    environments = client.get("/v1/environments", list[admin.Environment], {"tenant": TENANT})
    if not any(row.name == ENVIRONMENT for row in environments):
        create = admin.EnvironmentCreate(name=ENVIRONMENT, tenant=TENANT)
        client.send("POST", "/v1/environments", admin.Environment, create)
    deploy(client, files, console)
    keys = client.get("/v1/keys", list[admin.Key], in_tenant)
    mine = [row for row in keys if row.name == KEY and row.state in {"active", "retiring"}]
    if mine:
        rotate = object_path("keys", mine[0].id, "rotate")
        return client.send("POST", rotate, admin.KeyCreated, admin.KeyRotate()).key
    create_key = admin.KeyCreate(name=KEY, tenant=TENANT, environment=ENVIRONMENT)
    return client.send("POST", "/v1/keys", admin.KeyCreated, create_key).key


def deploy(client: AdminClient, files: dict[str, Path], console: Console) -> None:
    """Deploy what is not deployed, and anew what went with another installation."""
    models = {row.name: row for row in client.get("/v1/models", list[fleet.Model])}
    there = {row.name: row for row in client.get("/v1/deployments", list[fleet.Deployment])}
    for name, path in files.items():
        if name in there:
            model = models.get(there[name].model)
            if model is None or Path(model.path).is_file():
                continue
            client.send("DELETE", object_path("deployments", there[name].id), type(None))
            client.send("DELETE", object_path("models", model.id), type(None))
        console.print(f"deploys  {name}")
        deployment = fleet.DeploymentCreate(
            name=name,
            engine="llamacpp",
            model=str(path.resolve()),
            embedding=name == EMBEDDING,
            context_tokens=512 if name == EMBEDDING else 2_048,
        )
        client.send("POST", "/v1/deployments", fleet.Deployment, deployment)


def wait_ready(client: AdminClient, names: tuple[str, ...], console: Console) -> None:
    """Return when every named deployment is ready, showing their states while they are not.

    Raises CommandError with the reason when one cannot start, or after READY_S.
    """
    started = time.monotonic()
    with console.status("loads    the models …") as status:
        while True:
            rows = client.get("/v1/deployments", list[fleet.Deployment])
            waiting = [row for row in rows if row.name in names and row.state != "ready"]
            if not waiting:
                break
            seconds = time.monotonic() - started
            failed = [row for row in waiting if row.state == "failed"]
            if failed or seconds > READY_S:
                row = (failed or waiting)[0]
                raise CommandError(
                    f"The deployment {row.name} is {row.state}: {row.reason or 'no reason given'}.",
                    next_step="Look at the logs of its engine in the home's agent/engines folder.",
                )
            states = ", ".join(f"{row.name} {row.state}" for row in waiting)
            status.update(f"loads    {states} ({seconds:.0f} s)")
            time.sleep(POLL_S)
    console.print(f"ready    {', '.join(names)} ({time.monotonic() - started:.1f} s)")


def ask(lan: httpx.Client, console: Console) -> tuple[str, str]:
    """One streamed chat completion, printed as it comes; its text and its request id."""
    body = {
        "model": CHAT,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION},
        ],
        "max_tokens": 48,
        "temperature": 0,
        "stream": True,
    }
    console.print(f"\n[bold]you[/]      {escape(QUESTION)}\n[bold]model[/]    ", end="")
    text = ""
    with lan.stream("POST", "/chat/completions", json=body) as response:
        if response.status_code != 200:
            response.read()
            raise refused(response)
        for line in response.iter_lines():
            payload = line.removeprefix("data: ")
            if payload in (line, "[DONE]"):
                continue
            event = json.loads(payload)
            if "error" in event:
                raise CommandError(f"The stream broke: {event['error']['message']}")
            for choice in event["choices"]:
                piece = choice["delta"].get("content") or ""
                console.print(escape(piece), end="")
                text += piece
    console.print("\n")
    return text, response.headers["x-request-id"]


def embed(lan: httpx.Client) -> tuple[str, str]:
    """One embedding; its size in words, and its request id."""
    response = lan.post("/embeddings", json={"model": EMBEDDING, "input": QUESTION})
    if response.status_code != 200:
        raise refused(response)
    vector = response.json()["data"][0]["embedding"]
    return f"{len(vector)} dimensions", response.headers["x-request-id"]


def refused(response: httpx.Response) -> CommandError:
    return CommandError(
        f"The endpoint answered {response.status_code}: {response.text[:500]}",
        next_step="Look at `cic status` and at the appliance's log.",
    )


def metered(client: AdminClient, text: str, request_id: str) -> Metered:
    """The answer with its ledger record, which is durable before the answer's last byte came."""
    rows = [msgspec.json.decode(line, type=admin.LedgerRow) for line in client.lines("/v1/ledger")]
    for row in reversed(rows):
        if row.request_id == request_id:
            return Metered(text, row)
    raise CommandError(
        f"The ledger has no record of the request {request_id}.",
        next_step="Run `cic ledger verify` and report this defect.",
    )


def summary(endpoint: str, secret: str, chat: Metered, embedding: Metered) -> dict[str, object]:
    """The demo's outcome as one JSON object."""
    return {
        "endpoint": endpoint,
        "key": secret,
        "chat": {"model": CHAT, "text": chat.text, "record": chat.record},
        "embedding": {"model": EMBEDDING, "size": embedding.text, "record": embedding.record},
    }


def show(
    console: Console, home: Home, endpoint: str, secret: str, chat: Metered, embedding: Metered
) -> None:
    """Print what was metered and what to type next."""
    for what, answer in (("chat", chat), (f"embedding, {embedding.text}", embedding)):
        row = answer.record
        console.print(
            f"metered  record {row.seq}: {what}; {row.input_tokens} tokens in, "
            f"{row.output_tokens} out, measured by {row.measured}, {row.status}, "
            f"{row.latency_ms} ms, request {row.request_id}"
        )
    click.echo(f"""
endpoint {endpoint}
key      {secret}

curl {endpoint}/chat/completions -H "Authorization: Bearer {secret}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{CHAT}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{endpoint}", api_key="{secret}")
answer = client.chat.completions.create(
    model="{CHAT}", messages=[{{"role": "user", "content": "Say hello."}}]
)
print(answer.choices[0].message.content)

{on_the_path()}{cic_line(home, "status")}         what runs
{cic_line(home, "console")}        the whole site in this terminal
{cic_line(home, "usage")}          who used how many tokens
{cic_line(home, "ledger verify")}  that nothing was lost or changed
""")


def on_the_path() -> str:
    """The line a shell needs before it knows `cic`; empty where it does."""
    if shutil.which("cic"):
        return ""
    return f"export PATH={shlex.quote(str(Path(sys.prefix) / 'bin'))}:$PATH\n"


def serve_on(console: Console, endpoint: str) -> None:
    """Wait for Ctrl-C or SIGTERM."""
    console.print(f"serves   {endpoint} until Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def stop(process: subprocess.Popen[bytes], console: Console) -> None:
    """End the site in order: it drains, stops its engines and exits."""
    if process.poll() is None:
        console.print("stops    the site")
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
