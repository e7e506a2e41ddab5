"""Bursts from the first machine to the last, with a cloud that does what the test says."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.domain.errors import CrossLogicError
from appliance.fleet.burst.members import NodeState
from appliance.fleet.burst.service import BurstDesk, NodeSeen, Standing
from appliance.fleet.burst.task import Joining
from appliance.fleet.errors import BurstsOff, CloudUnavailable, NoOffer
from appliance.registry.bursts import BurstSpec
from appliance.registry.errors import AlreadyExists
from appliance.registry.registry import Registry, open_database
from appliance.security.seal import Seal
from appliance.settings import Bursting
from tests.fakes.clock import ManualClock
from tests.fakes.clouds import CHEAP, STEADY, FakeClouds

MICRO = 1_000_000
SPEC = BurstSpec("L4", 1, 1, "prefer", 2 * MICRO)


@dataclass
class Nodes:
    """The fleet, as far as bursts see it."""

    states: dict[str, NodeState] = field(default_factory=dict)
    notices: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    invited: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    dismissed: list[str] = field(default_factory=list)

    async def invite(self, node_name: str, ttl_s: int) -> Joining:
        self.invited.append(node_name)
        return Joining("https://10.0.0.1:8444", f"clnt_{len(self.invited)}")

    def seen(self, node_name: str) -> NodeSeen:
        return NodeSeen(
            self.states.get(node_name, "absent"),
            notice=node_name in self.notices,
            busy=node_name in self.busy,
        )

    async def empty(self, node_name: str, reason: str) -> None:
        self.emptied.append(node_name)
        self.states[node_name] = "empty"

    async def dismiss(self, node_name: str) -> None:
        self.dismissed.append(node_name)
        self.states.pop(node_name, None)


@dataclass
class Site:
    desk: BurstDesk
    clouds: FakeClouds
    nodes: Nodes
    clock: ManualClock
    registry: Registry

    async def turns(self, count: int = 1) -> None:
        for _ in range(count):
            await self.desk.turn()
            self.clock.turn(1)

    async def only(self) -> Standing:
        (standing,) = await self.desk.standings()
        return standing

    async def states(self) -> list[str]:
        return [member.state for member in (await self.only()).members]

    async def running(self, spec: BurstSpec = SPEC) -> None:
        """A burst whose machines have all joined."""
        await self.desk.up("root", "more", spec)
        await self.turns(3)
        for member in (await self.only()).members:
            self.nodes.states[member.node_name] = "ready"
        await self.turns(2)
        assert await self.states() == ["running"] * spec.nodes


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    clock = ManualClock()
    database = open_database(tmp_path / "registry.db")
    registry = Registry(database, pepper=b"p" * 32, seal=Seal(b"s" * 32), clock=clock)
    clouds, nodes = FakeClouds(), Nodes()
    desk = BurstDesk(
        registry=registry,
        clouds=clouds,
        nodes=nodes,
        settings=Bursting(provider="skypilot"),
        clock=clock,
    )
    yield Site(desk, clouds, nodes, clock, registry)
    await registry.close()
    database.close()


async def test_a_burst_goes_up_joins_runs_and_is_given_back(site: Site) -> None:
    await site.running()
    (member,) = (await site.only()).members
    assert (member.offer, member.price_micro) == (CHEAP, CHEAP.price_micro)
    (task,) = site.clouds.tasks
    assert task["secrets"] == {"CIC_JOIN_TOKEN": "clnt_1"}
    assert [r["use_spot"] for r in task["resources"]["ordered"]] == [True, False]
    # The machine ends itself when its money is spent, reckoned at the dearest price.
    assert int(task["envs"]["CIC_LIFE_S"]) == 2 * MICRO * 3_600 // STEADY.price_micro - 900

    site.clock.turn(3_600)
    assert (await site.only()).spent_micro == pytest.approx(CHEAP.price_micro, rel=0.01)
    await site.desk.down("root", "more")
    await site.turns(4)
    standing = await site.only()
    assert [m.state for m in standing.members] == ["gone"]
    assert standing.row.ended_at_ns is not None
    assert site.clouds.clusters == {}
    assert site.nodes.emptied[0] == site.nodes.dismissed[0] == member.node_name
    spent_micro = standing.spent_micro
    site.clock.turn(3_600)
    assert (await site.only()).spent_micro == spent_micro  # what is gone costs nothing more
    actions = [(e.actor, e.action) for e in await site.registry.audit.list()]
    assert ("root", "create") in actions
    assert ("root", "end") in actions
    assert ("appliance:bursts", "running") in actions


async def test_no_cloud_is_asked_while_there_is_no_burst(site: Site) -> None:
    site.clouds.away = True
    await site.turns(3)
    assert site.clouds.looks == 0


async def test_off_is_off(site: Site) -> None:
    desk = BurstDesk(
        registry=site.registry,
        clouds=site.clouds,
        nodes=site.nodes,
        settings=Bursting(),
        clock=site.clock,
    )
    for asked in (desk.plan(SPEC), desk.up("root", "more", SPEC)):
        with pytest.raises(BurstsOff):
            await asked
    await desk.run()  # returns at once


async def test_what_nobody_offers_or_the_money_does_not_last_for_is_refused(site: Site) -> None:
    with pytest.raises(NoOffer, match="No cloud has 8 × H100"):
        await site.desk.up("root", "more", BurstSpec("H100", 8, 1, "prefer", 10 * MICRO))
    with pytest.raises(NoOffer, match="budget lasts for less"):
        await site.desk.up("root", "more", BurstSpec("L4", 1, 1, "prefer", 1_000))
    assert await site.desk.standings() == []
    await site.desk.up("root", "more", SPEC)
    with pytest.raises(AlreadyExists):
        await site.desk.up("root", "more", SPEC)


async def test_the_plan_says_what_is_chosen_or_why_nothing_is(site: Site) -> None:
    planned = await site.desk.plan(SPEC)
    assert planned.ranking.candidates == (CHEAP, STEADY)
    assert planned.chosen is not None
    site.clouds.no_capacity = True
    planned = await site.desk.plan(SPEC)
    assert planned.chosen is None
    assert "no cloud is enabled" in planned.problem
    assert (await site.desk.plan(BurstSpec("H100", 8, 1, "prefer", MICRO))).chosen is None
    assert site.clouds.launched == []


async def test_the_budget_ends_a_burst_before_it_is_spent(site: Site) -> None:
    await site.running(BurstSpec("L4", 1, 1, "prefer", MICRO // 2))
    while (standing := await site.only()).row.ended_at_ns is None:
        site.clock.turn(60)
        await site.turns()
        assert standing.spent_micro <= MICRO // 2
    assert standing.row.reason == "its budget is spent"
    assert site.clouds.clusters == {}
    assert standing.spent_micro > MICRO // 4


async def test_it_is_given_back_when_nobody_asks_for_anything(site: Site) -> None:
    await site.running(BurstSpec("L4", 1, 1, "prefer", 2 * MICRO, idle_s=300))
    (member,) = (await site.only()).members
    site.nodes.busy.add(member.node_name)
    for _ in range(10):
        site.clock.turn(60)
        await site.turns()
    assert (await site.only()).row.wish == "up"
    site.nodes.busy.clear()
    for _ in range(6):
        site.clock.turn(60)
        await site.turns()
    await site.turns(3)
    standing = await site.only()
    assert standing.row.reason == "no request for 300 s"
    assert standing.row.ended_at_ns is not None


async def test_a_machine_that_is_taken_away_is_replaced_at_once(site: Site) -> None:
    await site.running()
    (member,) = (await site.only()).members
    site.nodes.notices.add(member.node_name)
    await site.turns(3)
    assert await site.states() == ["leaving", "launching"]
    site.nodes.states[member.node_name] = "silent"
    del site.clouds.clusters[member.cluster]  # its cloud has done it
    await site.turns(4)
    first, second = (await site.only()).members
    assert (first.state, first.reason) == ("gone", "its cloud takes it away")
    assert second.node_name != first.node_name
    assert site.nodes.invited == [first.node_name, second.node_name]
    site.nodes.states[second.node_name] = "ready"
    await site.turns(2)
    assert await site.states() == ["gone", "running"]


async def test_no_capacity_is_tried_again_ever_more_slowly(site: Site) -> None:
    site.clouds.no_capacity = True
    await site.desk.up("root", "more", SPEC)
    for _ in range(600):
        await site.turns()
    launches = len(site.clouds.launched)
    assert 3 <= launches <= 5  # after 0, 60, 180 and 420 s
    reasons = {m.reason for m in (await site.only()).members if m.state == "gone"}
    assert reasons == {"not launched: ResourcesUnavailableError: no capacity anywhere"}
    site.clouds.no_capacity = False
    for _ in range(1_000):
        await site.turns()
    assert "joining" in await site.states()


async def test_a_machine_whose_launch_was_not_answered_is_found_and_not_doubled(
    site: Site,
) -> None:
    site.clouds.lose_answer = True
    await site.desk.up("root", "more", SPEC)
    await site.turns(4)
    assert len(site.clouds.launched) == 1
    assert await site.states() == ["joining"]


async def test_a_machine_that_is_not_taken_down_is_tried_until_it_is(site: Site) -> None:
    await site.running()
    site.clouds.stuck = True
    await site.desk.down("root", "more")
    await site.turns(10)
    standing = await site.only()
    assert [m.state for m in standing.members] == ["ending"]
    before = standing.spent_micro
    site.clock.turn(3_600)
    assert (await site.only()).spent_micro > before  # it still costs
    site.clouds.stuck = False
    await site.turns(4)
    assert (await site.only()).row.ended_at_ns is not None


async def test_a_cloud_that_does_not_answer_changes_nothing(site: Site) -> None:
    await site.running()
    site.clouds.away = True
    with pytest.raises(CloudUnavailable):
        await site.desk.turn()
    assert await site.states() == ["running"]
    await site.desk.down("root", "more")
    site.clouds.away = False
    await site.turns(4)
    assert (await site.only()).row.ended_at_ns is not None


async def test_a_restart_goes_on_where_it_was(site: Site) -> None:
    await site.running()
    again = BurstDesk(
        registry=site.registry,
        clouds=site.clouds,
        nodes=site.nodes,
        settings=Bursting(provider="skypilot"),
        clock=site.clock,
    )
    await again.turn()
    assert await site.states() == ["running"]
    assert len(site.clouds.launched) == 1


async def test_a_step_that_fails_is_shown_and_taken_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(node_name: str, ttl_s: int) -> Joining:
        raise CrossLogicError("No address of this host is known.")

    await site.desk.up("root", "more", SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(site.nodes, "invite", refuse)
        await site.turns(2)
    (member,) = (await site.only()).members
    assert (member.state, member.reason) == ("wanted", "No address of this host is known.")
    assert member.paid_from_ns is None
    site.clock.turn(60)
    await site.turns(2)
    assert await site.states() == ["joining"]
