"""Reserved capacity: what is admitted, what is refused and with which figures, what ends it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.capacity import Promise, earliest_ns, promised_at, promised_most
from appliance.registry.errors import (
    AlreadyExists,
    CapacityExceeded,
    CapacityUnknown,
    InUse,
    InvalidValue,
    NotFound,
)
from appliance.registry.registry import Registry
from appliance.registry.reservations import ReservationRow, Room
from tests.fakes.registry import ACTOR, Site

HOUR_NS = 3_600_000_000_000
ROOM = Room(100, 20)  # 80 can be promised


@pytest.fixture
async def acme(registry: Registry) -> Registry:
    for name in ("acme", "other"):
        await registry.tenants.create(ACTOR, name)
        await registry.environments.create(ACTOR, "prod", tenant=name)
    await registry.deployments.create(ACTOR, "llama", "external", url="http://127.0.0.1:1")
    return registry


async def reserve(registry: Registry, tokens_per_s: int, **named: object) -> ReservationRow:
    whole = {"tenant": "acme", "deployment": "llama", "room": ROOM} | named
    return await registry.reservations.create(ACTOR, tokens_per_s=tokens_per_s, **whole)  # type: ignore[arg-type]


async def test_what_was_measured_less_the_headroom_is_all_that_can_be_promised(
    acme: Registry,
) -> None:
    await reserve(acme, 50)
    with pytest.raises(CapacityExceeded) as refused:
        await reserve(acme, 31, tenant="other")
    assert refused.value.message == (
        "'llama' makes 100 tokens/s as measured; less 20 % headroom 80 can be promised, and 50 are"
        " promised at that time: 30 are free, 31 were asked for."
    )
    assert refused.value.next_step == (
        "Ask for 30, or add replicas with `cic deployment scale llama N`."
    )
    await reserve(acme, 30, tenant="other")
    assert [row.tokens_per_s for row in await acme.reservations.list(0)] == [50, 30]


async def test_a_refusal_says_when_it_would_fit(acme: Registry, site: Site) -> None:
    now_ns = site.clock.wall_ns()
    await reserve(acme, 60, until_ns=now_ns + HOUR_NS)
    with pytest.raises(CapacityExceeded, match="20 are free") as refused:
        await reserve(acme, 40, tenant="other")
    assert refused.value.next_step.startswith("Begin at 20")
    later = await reserve(acme, 40, tenant="other", from_ns=now_ns + HOUR_NS)
    assert later.from_ns == now_ns + HOUR_NS
    assert later.until_ns is None


async def test_nothing_is_promised_of_what_nobody_measured(acme: Registry) -> None:
    with pytest.raises(CapacityUnknown, match="Nobody knows yet"):
        await reserve(acme, 1, room=Room(None, 20))


async def test_the_same_twice_at_once_is_a_change_of_the_first(acme: Registry) -> None:
    first = await reserve(acme, 10, environment="prod")
    await reserve(acme, 10)
    with pytest.raises(AlreadyExists, match="acme/prod has a reservation of 'llama'") as refused:
        await reserve(acme, 5, environment="prod")
    assert first.id in refused.value.next_step
    changed = await acme.reservations.update(ACTOR, first.id, ROOM, tokens_per_s=70)
    assert changed.tokens_per_s == 70
    with pytest.raises(CapacityExceeded):
        await acme.reservations.update(ACTOR, first.id, ROOM, tokens_per_s=71)
    # Less is never refused, however little is left of the capacity.
    fewer = await acme.reservations.update(ACTOR, first.id, Room(5, 20), tokens_per_s=60)
    assert fewer.tokens_per_s == 60


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"tokens_per_s": 0}, "tokens a second cannot be 0"),
        ({"tokens_per_s": 1, "priority": 101}, "priority cannot be 101"),
        ({"tokens_per_s": 1, "until_ns": 1}, "end before it begins"),
    ],
)
async def test_what_is_no_promise_is_refused(
    acme: Registry, named: dict[str, int], message: str
) -> None:
    rate = named.pop("tokens_per_s")
    with pytest.raises(InvalidValue, match=message):
        await reserve(acme, rate, **named)
    for wrong in ({"tenant": "nobody"}, {"deployment": "nothing"}, {"environment": "none"}):
        with pytest.raises(NotFound):
            await reserve(acme, 1, **wrong)
    assert await acme.reservations.list(0) == []


async def test_an_environment_of_another_region_is_refused(acme: Registry) -> None:
    await acme.environments.create(ACTOR, "far", tenant="acme", region="elsewhere")
    with pytest.raises(InvalidValue, match="its requests do not go there"):
        await reserve(acme, 1, environment="far")


async def test_it_ends_once_and_stays_on_record(acme: Registry, site: Site) -> None:
    made = await reserve(acme, 10)
    now_ns = site.clock.wall_ns()
    ended = await acme.reservations.end(ACTOR, made.id)
    assert ended.ended_at_ns == now_ns
    assert await acme.reservations.end(ACTOR, made.id) == ended
    assert await acme.reservations.list(now_ns) == []
    assert await acme.reservations.list(now_ns, ended=True) == [ended]
    with pytest.raises(InvalidValue, match="has ended"):
        await acme.reservations.update(ACTOR, made.id, ROOM, tokens_per_s=1)
    audit = [entry for entry in await acme.audit.list() if entry.object_kind == "reservation"]
    assert sorted(entry.action for entry in audit) == ["create", "end"]


async def test_it_goes_with_its_tenant_and_keeps_its_deployment(acme: Registry, site: Site) -> None:
    mine, others = (
        await reserve(acme, 10, environment="prod"),
        await reserve(acme, 10, tenant="other"),
    )
    with pytest.raises(InUse, match="reservations: 2"):
        await acme.deployments.delete(ACTOR, "llama")
    await acme.tenants.delete(ACTOR, "acme", cascade=True)
    assert [row.id for row in await acme.reservations.list(site.clock.wall_ns())] == [others.id]
    assert (await acme.reservations.get(mine.id)).ended_at_ns is not None
    await acme.reservations.end(ACTOR, others.id)
    await acme.deployments.delete(ACTOR, "llama")


spans = st.tuples(
    st.integers(1, 9), st.integers(0, 30), st.one_of(st.none(), st.integers(1, 20))
).map(lambda t: Promise(t[0], t[1], None if t[2] is None else t[1] + t[2]))


@given(st.lists(spans, max_size=8), spans)
def test_the_most_is_the_most_at_any_moment(promises: list[Promise], span: Promise) -> None:
    end = 60 if span.until_ns is None else span.until_ns
    each = [promised_at(promises, moment) for moment in range(span.from_ns, end)]
    assert promised_most(promises, span) == max(each)


@given(st.lists(spans, max_size=8), spans, st.integers(0, 30))
def test_the_earliest_fits_and_none_before_it_does(
    promises: list[Promise], wanted: Promise, room: int
) -> None:
    def fits(start: int) -> bool:
        length = None if wanted.until_ns is None else wanted.until_ns - wanted.from_ns
        span = Promise(wanted.tokens_per_s, start, None if length is None else start + length)
        return promised_most(promises, span) + wanted.tokens_per_s <= room

    found = earliest_ns(promises, wanted, room)
    tries = [start for start in range(wanted.from_ns, 80) if fits(start)]
    assert found == (tries[0] if tries else None)


async def test_a_promise_is_not_ended_in_the_past(site: Site, acme: Registry) -> None:
    made = await reserve(acme, 10)
    site.clock.turn(60)
    with pytest.raises(InvalidValue, match="before it was said so") as refused:
        await acme.reservations.update(ACTOR, made.id, ROOM, until_ns=made.from_ns + 1)
    assert f"cic reservation end {made.id}" in refused.value.next_step
