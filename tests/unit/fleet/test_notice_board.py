"""Notices of the end of nodes: those of people are kept, those of clouds are in the audit."""

import pytest

from appliance.domain.clock import SystemClock
from appliance.domain.ids import NodeId
from appliance.fleet.notice_board import NoticeBoard
from appliance.fleet.notices import Phase
from appliance.registry.errors import InvalidValue, NotFound
from appliance.registry.registry import Registry
from appliance.wire.agent import PreemptionNotice

SECOND_NS = 1_000_000_000


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()  # the registry's


async def actions(registry: Registry) -> list[tuple[str, str]]:
    return [(e.actor, e.action) for e in await registry.audit.list() if "notice" in e.action]


async def test_a_person_gives_notice_changes_it_and_takes_it_back(
    registry: Registry, clock: SystemClock
) -> None:
    node = await registry.nodes.create("root", "n1")
    at_ns = clock.wall_ns() + 60 * SECOND_NS
    node_id, notice = await registry.notices.give("root", "n1", at_ns, "the host is replaced")
    assert (node_id, notice.source, notice.at_ns) == (node.id, "operator", at_ns)
    assert await registry.notices.list() == {node.id: notice}
    _, later = await registry.notices.give("root", node.id, at_ns + SECOND_NS)
    assert await registry.notices.list() == {node.id: later}
    await registry.notices.withdraw("root", "n1")
    await registry.notices.withdraw("root", "n1")  # nothing is left to take back
    assert await registry.notices.list() == {}
    assert await actions(registry) == [
        ("root", "notice"),
        ("root", "notice"),
        ("root", "notice withdrawn"),
    ]


async def test_a_notice_that_cannot_be(registry: Registry, clock: SystemClock) -> None:
    await registry.nodes.create("root", "n1")
    at_ns = clock.wall_ns() + SECOND_NS
    with pytest.raises(NotFound):
        await registry.notices.give("root", "n2", at_ns)
    with pytest.raises(InvalidValue):
        await registry.notices.give("root", "n1", clock.wall_ns())
    for reason in ("two\nlines", "x" * 201):
        with pytest.raises(InvalidValue):
            await registry.notices.give("root", "n1", at_ns, reason)
    assert await actions(registry) == []


async def test_a_notice_goes_with_its_node(registry: Registry, clock: SystemClock) -> None:
    await registry.nodes.create("root", "n1")
    await registry.notices.give("root", "n1", clock.wall_ns() + SECOND_NS)
    await registry.nodes.delete("root", "n1")
    assert await registry.notices.list() == {}


async def test_what_a_cloud_says_is_written_down_when_it_comes_and_when_it_goes(
    registry: Registry, clock: SystemClock
) -> None:
    node = await registry.nodes.create("root", "n1")
    board = NoticeBoard(registry.notices)
    told = PreemptionNotice(
        source="azure",
        at_ns=clock.wall_ns() + 30 * SECOND_NS,
        seen_ns=clock.wall_ns(),
        detail="preempt",
    )
    assert not board.hear(node.id, None, None, 0)
    assert board.hear(node.id, told, None, 0)
    assert not board.hear(node.id, told, None, 0)
    assert board.phase(node.id, clock.wall_ns()) is Phase.HANDING_OVER
    await board.record()
    await board.record()
    assert board.hear(node.id, None, None, 0)
    assert board.phase(node.id, clock.wall_ns()) is Phase.NONE
    await board.record()
    assert await actions(registry) == [
        ("appliance:fleet", "notice"),
        ("appliance:fleet", "notice withdrawn"),
    ]
    assert board.hear(NodeId("nod_gone"), told, None, 0)
    await board.record()  # the node was removed: there is nothing to write about
    assert len(await actions(registry)) == 2


async def test_the_sooner_of_a_cloud_and_a_person(registry: Registry, clock: SystemClock) -> None:
    node = await registry.nodes.create("root", "n1")
    board = NoticeBoard(registry.notices)
    await registry.notices.give("root", "n1", clock.wall_ns() + 3_600 * SECOND_NS)
    await board.read()
    assert board.phase(node.id, clock.wall_ns()) is Phase.ANNOUNCED
    soon = PreemptionNotice(
        source="gcp", at_ns=clock.wall_ns() + 30 * SECOND_NS, seen_ns=clock.wall_ns()
    )
    board.hear(node.id, soon, None, 0)
    assert board.standing(node.id) == soon


@pytest.mark.parametrize("skew_s", [-3_600, 0, 3_600])
async def test_a_notice_is_read_by_the_clock_of_its_node(
    registry: Registry, clock: SystemClock, skew_s: int
) -> None:
    node = await registry.nodes.create("root", "n1")
    board = NoticeBoard(registry.notices)
    now_ns = clock.wall_ns()
    theirs_ns = now_ns + skew_s * SECOND_NS
    told = PreemptionNotice(source="aws", at_ns=theirs_ns + 120 * SECOND_NS, seen_ns=theirs_ns)
    assert board.hear(node.id, told, theirs_ns, now_ns)
    assert board.phase(node.id, now_ns) is Phase.EMPTYING
    assert board.phase(node.id, now_ns + 115 * SECOND_NS) is Phase.LAST
    standing = board.standing(node.id)
    assert standing is not None
    assert (standing.at_ns, standing.seen_ns) == (now_ns + 120 * SECOND_NS, now_ns)
    for late in range(1, 9):  # each message takes another time; that is no news
        sent_ns = theirs_ns + late * SECOND_NS
        assert not board.hear(node.id, told, sent_ns, now_ns + late * 1_300_000_000)
    assert board.standing(node.id) == standing
    await board.record()
    await board.record()
    assert await actions(registry) == [("appliance:fleet", "notice")]
