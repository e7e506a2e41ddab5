"""Bursts at work: one loop that looks at every machine that is lent and takes its next step.

Nothing here runs, and no cloud is asked, while there is no burst. Rows are written before and after
whatever may cost money, so that a restart goes on where it was.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from appliance.domain.clock import Clock
from appliance.domain.errors import CrossLogicError
from appliance.fleet.burst import budget
from appliance.fleet.burst.members import (
    Become,
    ClusterState,
    Down,
    Empty,
    Facts,
    Launch,
    NodeState,
    RequestState,
    Step,
    next_step,
)
from appliance.fleet.burst.offers import Ranking, rank
from appliance.fleet.burst.sky import Clouds, Sight, Taken
from appliance.fleet.burst.task import Joining, task
from appliance.fleet.errors import BurstsOff, CloudRefused, NoOffer
from appliance.registry.bursts import BurstRow, BurstSpec, MemberRow, Offer
from appliance.registry.registry import Registry
from appliance.settings import Bursting

log = logging.getLogger(__name__)

ACTOR: Final = "appliance:bursts"
_LAUNCH_RETRY_S: Final = 60
_SECOND_NS: Final = 1_000_000_000
_REQUESTS: Final[dict[str, RequestState]] = {
    "pending": "running",
    "running": "running",
    "waiting": "running",
    "succeeded": "done",
    "failed": "failed",
    "cancelled": "failed",
}
_CLUSTERS: Final[dict[str, ClusterState]] = {"init": "init", "up": "up", "stopped": "stopped"}


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A burst's node, as the fleet sees it."""

    state: NodeState
    notice: bool
    busy: bool  # requests run on it
    silent_s: float = 0.0  # since its agent was last heard


class NodeDesk(Protocol):
    """What bursts need of the rest of the appliance, for one node each."""

    async def invite(self, node_name: str, ttl_s: int) -> Joining:
        """A token with which a machine joins under that name. Raises CrossLogicError."""
        ...

    def seen(self, node_name: str) -> NodeSeen: ...

    async def empty(self, node_name: str, reason: str) -> None:
        """Nothing shall run on it any more."""
        ...

    async def dismiss(self, node_name: str) -> None:
        """It is gone: forget it, and whatever let it in."""
        ...


@dataclass(frozen=True, slots=True)
class Planned:
    """`chosen` None: `problem` says why SkyPilot's optimiser took none."""

    ranking: Ranking
    chosen: Taken | None
    problem: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A burst with its machines and what it was reckoned to cost so far."""

    row: BurstRow
    members: tuple[MemberRow, ...]
    spent_micro: int


class BurstDesk:
    """`plan`, `up`, `down` and `standings` are asked by people; `run` does the rest."""

    def __init__(
        self,
        *,
        registry: Registry,
        clouds: Clouds,
        nodes: NodeDesk,
        settings: Bursting,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._clouds = clouds
        self._nodes = nodes
        self._settings = settings
        self._clock = clock
        self._wake = asyncio.Event()
        self._busy_s: dict[str, float] = {}  # when each burst was last seen at work

    # What people ask.

    async def plan(self, spec: BurstSpec) -> Planned:
        """What a burst would get, without asking for it. Raises CloudUnavailable, CloudRefused."""
        self._check_on()
        ranking = rank(await self._clouds.offers(spec.gpu, spec.gpus, spec.clouds), spec)
        if not ranking.candidates:
            return Planned(ranking, None, "")
        try:
            chosen = await self._clouds.choose(self.task("plan", ranking.candidates, 3_600))
        except CloudRefused as error:
            return Planned(ranking, None, error.message)
        return Planned(ranking, chosen, "")

    def task(self, name: str, candidates: Sequence[Offer], life_s: int) -> dict[str, object]:
        """A task as it would be given to SkyPilot, with a dummy in the place of the token."""
        return self._task(name, candidates, life_s, Joining("https://SITE", "clnt_TOKEN"))

    async def up(self, actor: str, name: str, spec: BurstSpec) -> BurstRow:
        """Raises BurstsOff, NoOffer, CloudUnavailable, RegistryError."""
        self._check_on()
        ranking = rank(await self._clouds.offers(spec.gpu, spec.gpus, spec.clouds), spec)
        if not ranking.candidates:
            raise _no_offer(spec, ranking)
        row = await self._registry.bursts.create(actor, name, spec)
        self._wake.set()
        return row

    async def down(self, actor: str, ref: str) -> BurstRow:
        """Raises RegistryError."""
        row = await self._registry.bursts.end(actor, ref, "asked for")
        self._wake.set()
        return row

    async def standings(self) -> list[Standing]:
        """The oldest first."""
        bursts, members = await self._rows()
        now_ns = self._clock.wall_ns()
        return [self._standing(burst, members, now_ns) for burst in bursts]

    async def standing(self, ref: str) -> Standing:
        """Raises RegistryError."""
        burst = await self._registry.bursts.get(ref)
        return self._standing(burst, await self._registry.bursts.members(), self._clock.wall_ns())

    def _standing(self, burst: BurstRow, members: Sequence[MemberRow], now_ns: int) -> Standing:
        own = tuple(member for member in members if member.burst_id == burst.id)
        return Standing(burst, own, budget.spent_micro(own, now_ns))

    def _check_on(self) -> None:
        if self._settings.provider == "off":
            raise BurstsOff(
                "This site lends no machines from clouds.",
                next_step="Set burst.provider = 'skypilot' and restart. A cloud account is needed.",
            )

    # The loop.

    async def run(self) -> None:
        """Until cancelled. What fails is tried again in the next turn."""
        if self._settings.provider == "off":
            return
        while True:
            try:
                await self.turn()
            except CrossLogicError as error:
                log.warning("bursts could not be looked after", extra={"why": str(error)})
            try:
                async with asyncio.timeout(self._settings.poll_s):
                    await self._wake.wait()
            except TimeoutError:
                continue
            finally:
                self._wake.clear()

    async def turn(self) -> None:
        """Look at everything once, and take the next step of each machine."""
        bursts, members = await self._rows()
        living = [burst for burst in bursts if burst.ended_at_ns is None]
        if not living:
            return
        out = [m for m in members if m.state not in {"wanted", "gone"}]
        sight = Sight([], {})
        if out:
            sight = await self._clouds.look([m.request for m in out if m.request is not None])
        for burst in living:
            own = [member for member in members if member.burst_id == burst.id]
            await self._look_after(burst, own, sight)

    async def _look_after(
        self, burst: BurstRow, members: Sequence[MemberRow], sight: Sight
    ) -> None:
        now_ns = self._clock.wall_ns()
        reason = self._why_end(burst, members, now_ns)
        if burst.wish == "up" and reason:
            log.warning("burst ends", extra={"burst": burst.name, "why": reason})
            burst = await self._registry.bursts.end(ACTOR, burst.id, reason)
        for member in members:
            facts = self._facts(burst, member, sight)
            taken = _taken(member, sight)
            if taken != member:
                await self._registry.bursts.save_member(ACTOR, taken)
            try:
                await self._take(burst, members, taken, next_step(taken, facts, now_ns))
            except CrossLogicError as error:
                await self._note(taken, str(error))
        for ordinal, not_before_ns in budget.missing(burst, members, now_ns):
            serial = sum(1 for member in members if member.ordinal == ordinal)
            await self._registry.bursts.add_member(
                ACTOR, burst, ordinal, serial=serial, not_before_ns=not_before_ns
            )
            self._wake.set()
        if burst.wish == "down" and all(member.state == "gone" for member in members):
            await self._registry.bursts.close(ACTOR, burst.id)
            self._busy_s.pop(burst.id, None)

    def _why_end(self, burst: BurstRow, members: Sequence[MemberRow], now_ns: int) -> str:
        """Why a burst is to end now; "" when it goes on."""
        if budget.exhausted(burst, members, now_ns):
            return "its budget is spent"
        running = [m for m in members if m.state == "running"]
        busy = any(self._nodes.seen(member.node_name).busy for member in running)
        now_s = self._clock.monotonic_s()
        if busy or not running:
            self._busy_s[burst.id] = now_s
        idle_s = now_s - self._busy_s.setdefault(burst.id, now_s)
        if burst.spec.idle_s is not None and idle_s >= burst.spec.idle_s:
            return f"no request for {burst.spec.idle_s} s"
        return ""

    def _facts(self, burst: BurstRow, member: MemberRow, sight: Sight) -> Facts:
        seen = self._nodes.seen(member.node_name)
        request = sight.requests.get(member.request) if member.request is not None else None
        states = {cluster.name: cluster.state for cluster in sight.clusters}
        cluster: ClusterState = "none"
        if member.cluster in states:
            cluster = _CLUSTERS.get(states[member.cluster], "unknown")
        state: RequestState | None = None
        if member.request is not None:
            state = "unknown" if request is None else _REQUESTS.get(request.state, "unknown")
        return Facts(
            wish=burst.wish,
            request=state,
            message="" if request is None else request.message,
            cluster=cluster,
            node=seen.state,
            notice=seen.notice,
            silent_s=seen.silent_s,
        )

    async def _take(
        self, burst: BurstRow, members: Sequence[MemberRow], member: MemberRow, step: Step
    ) -> None:
        match step:
            case None:
                return
            case Launch():
                await self._launch(burst, members, member)
            case Down(reason):
                await self._end(member, reason)
            case Empty(reason):
                await self._nodes.empty(member.node_name, reason)
                await self._become(member, Become("leaving", reason))
            case Become():
                await self._become(member, step)

    async def _launch(
        self, burst: BurstRow, members: Sequence[MemberRow], member: MemberRow
    ) -> None:
        """Ask for a machine. It is on record as costing before SkyPilot hears of it."""
        spec, now_ns = burst.spec, self._clock.wall_ns()
        ranking = rank(await self._clouds.offers(spec.gpu, spec.gpus, spec.clouds), spec)
        if not ranking.candidates:
            raise _no_offer(spec, ranking)
        dearest = max(offer.price_micro for offer in ranking.candidates)
        others = [m for m in members if m.id != member.id]
        life_s = budget.life_s(burst, others, dearest, now_ns)
        joining = await self._nodes.invite(member.node_name, int(self._settings.token_s))
        launched = replace(
            member,
            state="launching",
            reason="",
            since_ns=now_ns,
            price_micro=dearest,
            # What was asked for before and never came into being cost nothing.
            paid_from_ns=now_ns,
            not_before_ns=now_ns + _LAUNCH_RETRY_S * _SECOND_NS,
        )
        await self._registry.bursts.save_member(ACTOR, launched)
        request = await self._clouds.launch(
            self._task(member.cluster, ranking.candidates, life_s, joining), member.cluster
        )
        await self._registry.bursts.save_member(ACTOR, replace(launched, request=request))
        log.info("burst machine asked for", extra={"burst": burst.name, "cluster": member.cluster})

    async def _end(self, member: MemberRow, reason: str) -> None:
        now_ns = self._clock.wall_ns()
        ending = replace(member, state="ending", reason=reason, since_ns=now_ns, request=None)
        await self._registry.bursts.save_member(ACTOR, ending)
        await self._nodes.empty(member.node_name, reason)
        request = await self._clouds.down(member.cluster)
        await self._registry.bursts.save_member(ACTOR, replace(ending, request=request))

    async def _become(self, member: MemberRow, step: Become) -> None:
        now_ns = self._clock.wall_ns()
        after = replace(
            member,
            state=step.state,
            reason=step.reason,
            since_ns=now_ns,
            request=None,
            paid_until_ns=now_ns if step.state == "gone" else None,
        )
        await self._registry.bursts.save_member(ACTOR, after)
        log.info(
            "burst machine",
            extra={"cluster": member.cluster, "state": step.state, "why": step.reason},
        )
        if step.state == "gone":
            await self._nodes.dismiss(member.node_name)
        self._wake.set()

    async def _note(self, member: MemberRow, why: str) -> None:
        """The step failed: people see why, and it is taken again."""
        log.warning("burst machine", extra={"cluster": member.cluster, "why": why})
        now_ns = self._clock.wall_ns()
        rows = await self._registry.bursts.members()
        current = next((row for row in rows if row.id == member.id), member)
        if current.state == "wanted":
            current = replace(current, not_before_ns=now_ns + _LAUNCH_RETRY_S * _SECOND_NS)
        await self._registry.bursts.save_member(ACTOR, replace(current, reason=why))

    async def _rows(self) -> tuple[list[BurstRow], tuple[MemberRow, ...]]:
        return await self._registry.bursts.list(), await self._registry.bursts.members()

    def _task(
        self, name: str, candidates: Sequence[Offer], life_s: int, joining: Joining
    ) -> dict[str, object]:
        return task(
            name,
            candidates,
            install=self._settings.install,
            joining=joining,
            life_s=life_s,
            disk_gb=self._settings.disk_gb,
        )


def _taken(member: MemberRow, sight: Sight) -> MemberRow:
    """The member with what SkyPilot took for it, and its price, once that is known."""
    for cluster in sight.clusters:
        if cluster.name == member.cluster and cluster.resources is not None:
            taken = cluster.resources
            price_micro = member.price_micro if taken.price_micro is None else taken.price_micro
            offer = Offer(
                *(taken.cloud, taken.region, taken.instance_type, taken.gpu, taken.gpus),
                *(taken.spot, price_micro),
            )
            return replace(member, offer=offer, price_micro=price_micro)
    return member


def _no_offer(spec: BurstSpec, ranking: Ranking) -> NoOffer:
    if not ranking.refused:
        return NoOffer(
            f"No cloud has {spec.gpus} × {spec.gpu}.",
            next_step="See what there is with `cic burst plan`, or enable an account: `sky check`.",
        )
    first = ranking.refused[0]
    return NoOffer(
        f"None of {len(ranking.refused)} offers of {spec.gpus} × {spec.gpu} is taken. The cheapest,"
        f" {first.offer.cloud} {first.offer.region}: {first.reason}.",
        next_step="See them all with `cic burst plan`, and give more money or other regions.",
    )
