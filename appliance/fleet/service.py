"""The fleet at work: takes in what agents and external engines tell, keeps the scheduler true.

The thin loop around `reconcile.plan`. It reads the registry again whenever that changed, plans
again whenever anything did, and hands the scheduler's effects to whoever applies them.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.domain.clock import Clock
from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import DeploymentId, ModelId, NodeId, ReplicaId
from appliance.fleet.api import NodeServer
from appliance.fleet.explanation import explain
from appliance.fleet.external import Endpoint, Health, Prober, Target, parse_endpoint
from appliance.fleet.fault_board import FaultBoard
from appliance.fleet.idle import Idle
from appliance.fleet.measurements import Measurements
from appliance.fleet.model_files import with_models
from appliance.fleet.node_facts import NodeFacts
from appliance.fleet.notice_board import NoticeBoard
from appliance.fleet.notices import Phase, drain_s, wish_under
from appliance.fleet.own_counts import OwnCounts
from appliance.fleet.questions import QuestionDesk
from appliance.fleet.reconcile import Plan, Wanted, plan
from appliance.fleet.sessions import LOCAL, Origin, Sessions
from appliance.fleet.shapes import Shapes
from appliance.fleet.sighting import facts_of
from appliance.fleet.statuses import DeploymentStatus, ExternalFacts
from appliance.fleet.telling import SchedulerPort, Teller
from appliance.fleet.view import FleetDeployment, FleetNode, deployment_view, node_view
from appliance.manifests.engine_counts import EngineReading
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.engines import Engine
from appliance.registry.models import ModelRow
from appliance.registry.nodes import NodeRow
from appliance.registry.registry import Registry
from appliance.registry.snapshot import Snapshot
from appliance.scheduler.tickets import Effects
from appliance.settings import Fleet as FleetSettings
from appliance.wire.agent import Desired, Heartbeat, Hello, Welcome
from appliance.wire.placement import Explanation

log = logging.getLogger(__name__)

ACTOR: Final = "appliance:fleet"
# A replica moves away from a node that was lost for so many times `node_lost_s`.
_MOVED_AFTER: Final = 6
_RELOAD_RETRY_S: Final = 1.0


class Fleet:
    """Everything that runs engines for this site.

    `start` reads the registry and listens; `run` keeps everything true until it is cancelled;
    `stop` ends listening. Agents and their engines live on.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        scheduler: SchedulerPort,
        apply: Callable[[Effects], None],
        settings: FleetSettings,
        clock: Clock,
        socket: Path,
        counted: Callable[[EngineReading], None] = lambda _reading: None,
    ) -> None:
        """`apply` starts and sheds requests: the gateway's. `socket` is `home.agent_socket`.

        `counted` is told what engines say they counted, with every heartbeat.
        """
        self._counted = counted
        self._registry = registry
        self._scheduler = scheduler
        self._settings = settings
        self._clock = clock
        self._sessions = Sessions(settings.node_lost_s, clock.monotonic_s())
        self._prober = Prober(every_s=settings.probe_s, clock=clock, changed=self._look_again)
        self._notices = NoticeBoard(registry.notices)
        self.questions = QuestionDesk()
        self._faults = FaultBoard(registry.faults, clock)
        self._server = NodeServer(socket, self)
        self._own_counts = OwnCounts()
        self._wake = asyncio.Event()
        self._stale = True  # the registry changed since it was read
        self._reloading = asyncio.Lock()
        self._wanted = Wanted((), (), {})
        self._measurements = Measurements(registry.profiles, Shapes(), ACTOR)
        self._idle = Idle()
        self._nodes: Mapping[NodeId, NodeRow] = {}
        self._models: Mapping[ModelId, ModelRow] = {}
        self._external: Mapping[DeploymentId, Target | str] = {}  # str: why it cannot be asked
        self._plan = Plan({}, {}, {})
        self._teller = Teller(scheduler, apply, self._measurements, settings.heartbeat_s)

    async def start(self) -> None:
        """Read the registry, tell the scheduler, listen for agents. Raises StorageError, OSError.

        The registry is read first: an agent that asked too early would be told to run nothing.
        """
        self._registry.on_change(self._registry_changed)
        await self._faults.read()
        await self.caught_up()
        await self._server.start()

    async def run(self) -> None:
        """Plan again after each change, and from time to time: silence is no event."""
        while True:
            try:
                await self._turn()
            except Exception:  # supervision: the endpoint stays up, and the next turn tries again
                log.exception("fleet could not be brought up to date")
                await asyncio.sleep(_RELOAD_RETRY_S)

    async def stop(self) -> None:
        await self._server.stop()
        await self._prober.close()

    # What agents say.

    async def hello(self, hello: Hello, origin: Origin = LOCAL) -> Welcome:
        """Make the node known. Raises UnsupportedVersion, ForeignNode, RegistryError.

        A node with a certificate is known already, by whatever name the registry has for it.
        """
        if origin.node_id is None:
            row = await self._registry.nodes.ensure(ACTOR, hello.node_name)
        else:
            row = await self._registry.nodes.get(origin.node_id)
        now_s, now_ns = self._clock.monotonic_s(), self._clock.wall_ns()
        self._sessions.hello(row.id, hello, now_s, now_ns, origin)
        await self.caught_up()  # so that the first heartbeat is answered with all it shall run
        self._look_again()
        log.info(
            "node says hello",
            extra={"node_id": row.id, "node": row.name, "engines": hello.engines},
        )
        return Welcome(node_id=row.id, heartbeat_s=self._settings.heartbeat_s)

    async def heartbeat(self, heartbeat: Heartbeat, origin: Origin = LOCAL) -> Desired:
        """Take the reports in; the answer is everything the node shall run.

        Raises UnknownNode, UnsupportedVersion, ForeignNode, BadReport.
        """
        node_id, now_ns = NodeId(heartbeat.node_id), self._clock.wall_ns()
        now_s = self._clock.monotonic_s()
        news = self._sessions.heartbeat(heartbeat, now_s, now_ns, origin)
        if self._notices.hear(node_id, heartbeat.notice, heartbeat.sent_ns, now_ns):
            self._look_again()
            news = True
        if news:
            self._replan()
            if self._plan.changes:
                self._look_again()
        if self._faults.hear(node_id, heartbeat.health):
            self._look_again()
        for reading in self._own_counts.hear(node_id, heartbeat.counts):
            self._counted(reading)
        self.questions.hear(node_id, heartbeat.answers)
        return Desired(
            replicas=with_models(
                self._plan.desired.get(node_id, ()),
                self._wanted.generations,
                self._models,
                remote=origin.node_id is not None,
            ),
            questions=self.questions.for_node(node_id),
            drain_s=drain_s(self._settings.drain_s, self._notices.standing(node_id), now_ns),
        )

    # What the others ask.

    def deployment(self, deployment_id: DeploymentId) -> FleetDeployment | None:
        """State, reason and replicas of a deployment; None: not known here (yet)."""
        status = self._plan.deployments.get(deployment_id)
        if status is None:
            return None
        scheduled = self._scheduler.view_of(deployment_id, self._clock.monotonic_s())
        return deployment_view(status, scheduled, self._own_counts.loads)

    def node(self, node_id: NodeId) -> FleetNode | None:
        """A node as its agent reports it; None: its agent has not said hello."""
        session, row = self._sessions.get(node_id), self._nodes.get(node_id)
        if session is None or row is None:
            return None
        lost = self._sessions.lost(node_id, self._clock.monotonic_s())
        wish = self._under_notice(row).wish
        return node_view(
            session,
            wish,
            lost=lost,
            notice=self._notices.standing(node_id),
            held=self._plan.held.get(node_id, ""),
        )

    def nodes(self) -> Mapping[str, FleetNode]:
        """Every node whose agent has said hello, by name."""
        seen = {row.name: self.node(node_id) for node_id, row in self._nodes.items()}
        return {name: node for name, node in seen.items() if node is not None}

    def node_named(self, name: str) -> FleetNode | None:
        """The node of that name; None: there is none, or its agent has not said hello."""
        found = next((row.id for row in self._nodes.values() if row.name == name), None)
        return None if found is None else self.node(found)

    def explain(self, deployment_id: DeploymentId) -> Explanation | None:
        """Why its replicas run where they do; None: not known here (yet), or external."""
        row = {row.id: row for row in self._wanted.deployments}.get(deployment_id)
        if row is None or row.engine is Engine.EXTERNAL:
            return None
        nodes = self._all_facts()
        status = self._plan.deployments.get(deployment_id)
        generation = self._wanted.generations[row.id, row.generation]
        profiles = self._measurements.of(row.engine, generation)
        return explain(row, self._wanted, nodes, status, profiles)

    def statuses(self) -> Mapping[DeploymentId, DeploymentStatus]:
        """Every deployment as planned last, for readiness and metrics."""
        return self._plan.deployments

    def prompt_tokens_per_byte(self, deployment_id: DeploymentId) -> float | None:
        """The largest that the agents measured on the deployment's replicas; None: none did."""
        status = self._plan.deployments.get(deployment_id)
        return None if status is None else status.prompt_tokens_per_byte

    # The loop's parts.

    def _registry_changed(self, _snapshot: Snapshot) -> None:
        self._stale = True
        self._look_again()

    def _look_again(self) -> None:
        self._wake.set()

    async def _turn(self) -> None:
        # Not `wait_for`: before Python 3.12 it loses a cancellation that meets the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.heartbeat_s):
                await self._wake.wait()
        self._wake.clear()
        await self.caught_up()
        self._unload()
        self._replan()
        await self._carry_out(self._plan)
        for keep in (self._learn, self._notices.record, self._faults.record):
            try:
                await keep()
            except Exception:  # supervision: what cannot be kept of one node must stop no other
                log.exception("fleet's records could not be brought up to date")

    def _unload(self) -> None:
        """Let go of what nobody asks for, and load what somebody asked for again."""
        now_s = self._clock.monotonic_s()
        views = {view.deployment_id: view for view in self._scheduler.view(now_s)}
        deployments = self._plan.deployments.items()
        on_the_way = {d for d, s in deployments if s.state != "unloaded" and not s.targets}
        unloaded = self._idle.unloaded(self._wanted.deployments, views, on_the_way, now_s)
        for deployment_id in unloaded ^ self._wanted.unloaded:
            event = "deployment unloaded" if deployment_id in unloaded else "deployment loads"
            log.info(event, extra={"deployment_id": deployment_id})
        self._wanted = replace(self._wanted, unloaded=unloaded)

    def _all_facts(self) -> dict[NodeId, NodeFacts]:
        now_s = self._clock.monotonic_s()
        return {node_id: self._facts(row, now_s) for node_id, row in self._nodes.items()}

    async def _learn(self) -> None:
        nodes = self._all_facts()
        statuses = self._plan.deployments.values()
        if await self._measurements.learn(self._wanted, statuses, nodes, self._clock.wall_ns()):
            self._stale = True  # the next plan knows better what they need

    async def _carry_out(self, made: Plan) -> None:
        """Write down what was planned. What is refused was overtaken; the next plan knows."""
        replicas = self._registry.replicas
        for replica_id, seats in made.placements.items():
            with _overtaken(replica_id):
                await replicas.place(ACTOR, replica_id, seats)
        # First what makes room: where one follows the other, the second waits for it anyway.
        for replica_id in made.removals:
            with _overtaken(replica_id):
                await replicas.remove(ACTOR, replica_id)
        for deployment_id, ordinal in made.successions:
            await replicas.succeed(ACTOR, deployment_id, ordinal)

    async def caught_up(self) -> None:
        """Read what is wanted, if that changed since. Returns when all of it is known here."""
        async with self._reloading:
            if self._stale:
                await self._read_registry()

    async def _read_registry(self) -> None:
        self._stale = False  # a change that comes while we read makes it stale again
        joined = self._sessions.joined()  # who comes while we read is judged by the next reading
        try:
            deployments = await self._registry.deployments.list()
            replicas = await self._registry.replicas.list()
            generations = await self._registry.generations.list()
            nodes = {row.id: row for row in await self._registry.nodes.list()}
            holders = await self._registry.node_certificates.holders()
            needs = await self._measurements.needs(deployments, generations)
            models = await self._registry.models.known()
            await self._notices.read()
            external = {
                row.id: await self._target(row)
                for row in deployments
                if row.engine is Engine.EXTERNAL and not row.suspended and row.replicas > 0
            }
        except BaseException:
            self._stale = True
            raise
        for node_id in joined - holders:  # they hold no certificate any more
            self._sessions.forget(node_id)
        for node_id in self._nodes.keys() - nodes.keys():
            self._sessions.forget(node_id)
            self._faults.forget(node_id)
            self._notices.forget(node_id)
        self._own_counts.placed(replicas)
        by_number = {(g.deployment_id, g.number): g for g in generations}
        unloaded = self._wanted.unloaded
        self._wanted = Wanted(deployments, replicas, by_number, needs, unloaded)
        self._nodes, self._external, self._models = nodes, external, models
        self._prober.watch({d: t for d, t in external.items() if isinstance(t, Target)})
        self._replan()

    async def _target(self, row: DeploymentRow) -> Target | str:
        """Where an external engine answers and with which key, or why it cannot be asked."""
        try:
            endpoint = parse_endpoint(row.url or "")
            api_key = await self._registry.deployments.api_key(row.id) if row.has_api_key else None
        except ValueError as error:
            return f"Its URL is not usable: {error}. Give another with `cic deployment update`."
        except CrossLogicError as error:
            return str(error)
        return Target(endpoint, api_key)

    def _replan(self) -> None:
        now_s = self._clock.monotonic_s()
        self._plan = plan(
            self._wanted,
            self._all_facts(),
            {d: self._external_facts(d, target) for d, target in self._external.items()},
            self._settings.node_lost_s * _MOVED_AFTER,
        )
        self._tell_scheduler(now_s)

    def _under_notice(self, row: NodeRow) -> NodeRow:
        """The node with the wish that its end, where one is announced, leaves of its own."""
        phase = self._notices.phase(row.id, self._clock.wall_ns())
        return replace(row, wish=wish_under(row.wish, phase))

    def _facts(self, row: NodeRow, now_s: float) -> NodeFacts:
        row = self._under_notice(row)
        session = self._sessions.get(row.id)
        lost = self._sessions.lost(row.id, now_s)
        silent_s = self._sessions.silent_s(row.id, now_s)
        return facts_of(row, session, lost=lost, silent_s=silent_s)

    def _external_facts(self, deployment_id: DeploymentId, target: Target | str) -> ExternalFacts:
        if isinstance(target, str):
            return ExternalFacts(None, None, Health(asked=True, reason=target))
        endpoint: Endpoint = target.endpoint
        return ExternalFacts(endpoint, target.api_key, self._prober.health(deployment_id))

    def _tell_scheduler(self, now_s: float) -> None:
        now_ns, leaving = self._clock.wall_ns(), self._handing_over()
        self._teller.tell(self._wanted, self._plan.deployments, leaving, now_s, now_ns)

    def _handing_over(self) -> set[str]:
        """Names of the nodes whose end is near: requests begin elsewhere, where they can."""
        now_ns, last = self._clock.wall_ns(), Phase.HANDING_OVER
        rows = self._nodes.values()
        return {row.name for row in rows if self._notices.phase(row.id, now_ns) >= last}


@contextlib.contextmanager
def _overtaken(replica_id: ReplicaId) -> Iterator[None]:
    try:
        yield
    except CrossLogicError as error:  # it was removed meanwhile
        log.info("replica not changed", extra={"replica_id": replica_id, "why": str(error)})
