"""`cic agent`: runs the engines of this node for the appliance of its home."""

import asyncio
import contextlib
import ctypes
import importlib.metadata
import logging
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, get_args

import aiohttp
import click

from agent import host
from agent.abroad import Abroad
from agent.durable import kept_message, read_message
from agent.engines.kind import Kinds
from agent.engines.kinds import known_kinds
from agent.errands import Errands
from agent.errors import AgentRunning, ParentGone
from agent.gpu.forgetting import forget_gpu
from agent.gpu.watch import GpuWatch
from agent.host_figures import HostReader
from agent.host_watch import HostWatch
from agent.identity import Identity, load_identity
from agent.join import host_name, join
from agent.link import Link
from agent.lock import held
from agent.preemption import Watch, Watching, metadata_of
from agent.processes import Processes
from agent.questions import Questions
from agent.replicas import Replicas
from agent.supervisor import Times
from agent.ways import SocketWay, Way
from appliance.domain.clock import SystemClock
from appliance.wire import logs
from appliance.wire.agent import Desired, DesiredReplica, EngineKind, Hello
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.systemd import Notifier

log = logging.getLogger(__name__)

# An agent that was told to end drains its engines first; a new one waits for it.
LOCK_WAIT_S: Final = 60.0
_GPUS_S: Final = (
    2.0  # to be seen before the node introduces itself; a hung driver is not waited for
)
_KEEP_RETRY_S: Final = 30.0  # where the disk did not take what is wanted
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_STOP_S: Final = 90.0  # to finish the engines' requests and end them


@dataclass(frozen=True, slots=True)
class Plan:
    """What this run of the agent was told."""

    state: Path
    socket: Path
    node_name: str
    identity: Identity | None  # None: of the appliance's own host
    keep_engines: bool
    parent: int | None  # end with this process
    stop_engines: bool  # that an earlier agent left, and do nothing else
    preemption: Watching
    metadata_url: str | None


@click.group(invoke_without_command=True)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="Where the appliance listens for agents. Default: in the home.",
)
@click.option("--name", help="Name of this node. Default: the host's name.")
@click.option(
    "--keep-engines",
    is_flag=True,
    help="Leave the engines running at the end, for the next agent. SIGHUP does so too.",
)
@click.option(
    "--parent-bound",
    is_flag=True,
    help="End, and stop the engines, when the process that started this one ends.",
)
@click.option(
    "--stop-engines",
    is_flag=True,
    help="Stop the engines that an earlier agent left running, and end.",
)
@click.option(
    "--preemption",
    type=click.Choice(get_args(Watching)),
    default="auto",
    envvar="CIC_AGENT_PREEMPTION",
    show_default=True,
    help="Watch for the end of a machine that this cloud lends. auto: when the firmware names one.",
)
@click.option(
    "--metadata-url",
    envvar="CIC_AGENT_METADATA_URL",
    help="Where the cloud's metadata service answers. Default: on the link-local address.",
)
@click.pass_context
def agent(
    context: click.Context,
    socket: Path | None,
    name: str | None,
    *,
    keep_engines: bool,
    parent_bound: bool,
    stop_engines: bool,
    preemption: Watching,
    metadata_url: str | None,
) -> None:
    """Run the engines of this node.

    The agent introduces itself to the appliance, is told which engines to run, and keeps them
    running. SIGTERM stops them after their requests; SIGHUP leaves them to the next agent. On a
    host that joined a site (`cic agent join`) the appliance is reached over the network.
    """
    if context.invoked_subcommand is not None:
        return
    invocation: Invocation = context.obj
    logs.configure("info")
    identity = load_identity(invocation.home.agent_state) if socket is None else None
    if socket is None and identity is None and not invocation.home.config_file.exists():
        raise CommandError(
            f"There is no site in {invocation.home.config}, and this host joined none.",
            next_step="Join one with `cic agent join`, make one with `cic init`, or name the"
            " appliance's socket with --socket.",
            exit_code=ExitCode.CONFIGURATION,
        )
    parent = os.getppid() if parent_bound else None
    notifier = Notifier.taken(os.environ, os.getpid())
    plan = Plan(
        state=invocation.home.agent_state,
        socket=socket or invocation.home.agent_socket,
        node_name=name or (host_name() if identity is None else identity.about.node_name),
        identity=identity,
        keep_engines=keep_engines,
        parent=parent,
        stop_engines=stop_engines,
        preemption=preemption,
        metadata_url=metadata_url,
    )
    try:
        if parent is not None:
            _end_with(parent)
        # A core file would be prompts and keys on disk. The engines inherit this.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with held(plan.state / "agent.lock", LOCK_WAIT_S):
            asyncio.run(_run(plan, notifier))
    except AgentRunning as error:
        raise CommandError(
            error.message, next_step=error.next_step, exit_code=ExitCode.CONFLICT
        ) from error
    except (ParentGone, ProcessLookupError) as error:
        raise CommandError("The process that started this agent has ended.") from error
    except OSError as error:
        raise CommandError(
            f"The agent cannot use its folder {plan.state}: {error}.",
            next_step="Check that it is there and may be written.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error


agent.add_command(join)
agent.add_command(forget_gpu)


async def _run(plan: Plan, notifier: Notifier) -> None:
    ends = _Ends(keep_engines=plan.keep_engines, parent=plan.parent)
    kinds = known_kinds(os.environ)
    versions = await asyncio.to_thread(_versions, kinds)
    processes = Processes(plan.state / "engines", host.boot_id())
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        gpus, background = await _gpus(plan, tasks)
        abroad = None
        if plan.identity is not None:
            abroad = Abroad(plan.identity, plan.state, host.boot_id(), SystemClock())
        way: Way = SocketWay(plan.socket) if abroad is None else abroad.way
        link = Link(way, _hello(plan.node_name, gpus.names(), versions))
        replicas = Replicas(
            processes=processes,
            kinds=kinds,
            session=session,
            tasks=tasks,
            cores=host.cores(),
            clock=SystemClock(),
            times=Times(),
            changed=link.changed,
            told=link.told,
            versions=versions,
            gpu_memory=gpus.memory_of,
        )
        gpus.reports, gpus.changed, link.gpus = replicas.reports, link.changed, gpus
        answerers = {
            "gpu_history": gpus.history,
            "engine_log": replicas.log_of,
            "engine_dump": replicas.dump_of,
        }
        link.questions = Questions(answerers, tasks, link.changed)
        wishes = _Wishes(plan.state / "desired.json", replicas, abroad)
        replicas.adopt()
        if plan.stop_engines:
            ends.asked.set()
        else:
            wishes.remember()
        background.append(tasks.create_task(replicas.run()))
        if not plan.stop_engines:
            reports = replicas.reports if abroad is None else abroad.leads(replicas.reports)
            background.append(tasks.create_task(link.run(reports, wishes.hear, replicas.counts)))
            if abroad is not None:
                background += abroad.begin(link, tasks)
            watch = _watch(plan, session, link, gpus=bool(gpus.gpus))
            if watch is not None:
                background.append(tasks.create_task(watch.run()))
        log.info("agent runs", extra={"node": plan.node_name, "state": str(plan.state)})
        background.append(tasks.create_task(notifier.watched()))
        notifier.ready(f"node {plan.node_name}")
        await ends.asked.wait()
        notifier.stopping("ending the engines", _STOP_S)
        wishes.deaf = True
        await wishes.settled()
        if ends.keep_engines:
            await replicas.release()
        else:
            await replicas.stop()
        for task in background:
            task.cancel()
        if abroad is not None:
            await abroad.end(keep=ends.keep_engines)
    log.info("agent ends", extra={"engines_kept": ends.keep_engines})


async def _gpus(plan: Plan, tasks: asyncio.TaskGroup) -> tuple[GpuWatch, list[asyncio.Task[None]]]:
    """The GPUs and this host's figures, watched unless only engines are to be stopped."""
    gpus = GpuWatch(plan.state, host.boot_id(), SystemClock())
    gpus.host = HostWatch(HostReader(plan.state, host.cores()), SystemClock())
    if plan.stop_engines:
        return gpus, []
    background = [tasks.create_task(gpus.host.run()), tasks.create_task(gpus.run())]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GPUS_S):
            await gpus.settled()
    return gpus, background


def _watch(plan: Plan, session: aiohttp.ClientSession, link: Link, *, gpus: bool) -> Watch | None:
    """Have the link tell of this machine's end; None: it is in no cloud."""
    metadata = metadata_of(plan.preemption, plan.metadata_url, os.environ, session, lambda: gpus)
    if metadata is None:
        return None
    watch = Watch(metadata, SystemClock(), link.changed, plan.state / "notice.json")
    link.notice = watch.notice
    return watch


class _Ends:
    """Why and how this run ends."""

    def __init__(self, *, keep_engines: bool, parent: int | None) -> None:
        """Raises ProcessLookupError when the parent is gone."""
        self.asked = asyncio.Event()
        self.keep_engines = keep_engines
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.asked.set)
        loop.add_signal_handler(signal.SIGINT, self.asked.set)
        loop.add_signal_handler(signal.SIGHUP, self._leave_engines)
        if parent is not None:
            self._parent = os.pidfd_open(parent)
            loop.add_reader(self._parent, self._parent_ended)

    def _parent_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent)
        log.info("the parent process has ended")
        self.asked.set()

    def _leave_engines(self) -> None:
        self.keep_engines = True
        self.asked.set()


class _Wishes:
    """What the appliance wants. It is written down at once, so that a restart remembers."""

    def __init__(self, path: Path, replicas: Replicas, abroad: Abroad | None) -> None:
        self._path = path
        self._replicas = replicas
        self._abroad = abroad
        if abroad is not None:
            abroad.want = self._models_came
        self._errands = Errands("wishes")
        self._last: Desired | None = None
        self._kept: Desired | None = None  # as it is on disk
        self._writing: asyncio.Future[bool] | None = None
        self._retry_at_s = 0.0
        self.deaf = False  # the agent is ending

    def remember(self) -> None:
        """Want what was wanted last. Where that is lost, what runs goes on until we are told."""
        self._last = self._kept = read_message(self._path, Desired)
        if self._last is not None:
            self._want(self._last)

    def hear(self, desired: Desired) -> None:
        if self.deaf:
            return
        message = Desired(replicas=desired.replicas, models=desired.models)
        changed = message != self._last
        self._last = message
        now_s = asyncio.get_running_loop().time()
        if message != self._kept and (changed or now_s >= self._retry_at_s):
            self._retry_at_s = now_s + _KEEP_RETRY_S
            self._keep(message)
        if changed:
            self._want(desired)

    def _keep(self, message: Desired) -> None:
        """The latest, one at a time: a disk that hangs has one to write, and not hundreds."""
        if self._writing is not None and not self._writing.done():
            self._retry_at_s = 0.0  # with the next word of the appliance
            return
        writing = self._errands.begin(partial(kept_message, self._path, message))

        def written(done: "asyncio.Future[bool]") -> None:
            if not done.cancelled() and done.result():
                self._kept = message

        writing.add_done_callback(written)
        self._writing = writing

    async def settled(self) -> None:
        """Returns when what was heard is on disk, or the disk does not answer."""
        await self._errands.settled()

    def _want(self, desired: Desired) -> None:
        """On a node with a store of its own, what waits for its model is not begun."""
        abroad = self._abroad
        replicas = desired.replicas if abroad is None else abroad.shelf.want(desired)
        self._replicas.want(replicas, desired.drain_s)

    def _models_came(self, replicas: Sequence[DesiredReplica]) -> None:
        if not self.deaf:
            self._replicas.want(replicas)


def _versions(kinds: Kinds) -> dict[EngineKind, str]:
    """Of the engines that are installed here."""
    told = ((name, kind.version()) for name, kind in kinds.items())
    return {name: version for name, version in told if version is not None}


def _hello(node_name: str, gpus: tuple[str, ...], versions: dict[EngineKind, str]) -> Hello:
    try:
        version = importlib.metadata.version("crosslogic-appliance")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Hello(
        node_name=node_name,
        agent_version=version,
        boot_id=host.boot_id(),
        cores=host.cores(),
        memory_bytes=host.memory_bytes(),
        engines=tuple(versions),
        engine_versions=versions,
        gpus=gpus,
    )


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent ends. Raises ParentGone when it has already.

    It does so when the *thread* that made us ends, so the process is watched as well, later on.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise ParentGone("The process that started this agent has ended.")
