"""API keys: secrets shown once, rotation with overlap, expiry, names in their environment."""

import asyncio
from pathlib import Path

import pytest

from appliance.domain.limits import Limits
from appliance.registry.errors import AlreadyExists, Ambiguous, InvalidValue, NotFound
from appliance.registry.registry import Registry
from appliance.registry.snapshot import Role
from appliance.security.api_keys import well_formed
from tests.fakes.registry import ACTOR, Site

DAY_NS = 86_400 * 1_000_000_000


@pytest.fixture
async def acme(registry: Registry) -> Registry:
    await registry.tenants.create(ACTOR, "acme")
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    return registry


async def test_a_key_is_shown_once_and_kept_nowhere(acme: Registry, site: Site) -> None:
    made = await acme.keys.create(ACTOR, tenant="acme", environment="prod", name="ci")
    turned = await acme.keys.rotate(ACTOR, "ci")
    assert well_formed(made.secret)
    assert made.secret.startswith("clsk_live_")
    assert made.secret.startswith(made.row.prefix.removesuffix("…"))
    await acme.close()
    site.database.close()
    kept = b"".join(file.read_bytes() for file in site.path.parent.iterdir())
    for secret in (made.secret, turned.secret):
        assert secret.encode() not in kept
        assert secret[10:40].encode() not in kept


async def test_the_row_of_a_key(acme: Registry) -> None:
    limits = Limits(tokens_per_min=1_000, concurrency=2)
    made = await acme.keys.create(
        ACTOR,
        tenant="acme",
        environment="prod",
        role=Role.READ_ONLY,
        test=True,
        limits=limits,
    )
    row = made.row
    assert row == await acme.keys.get(row.id) == await acme.keys.get(row.name)
    assert row.name == f"key-{row.id[-6:]}"
    assert made.secret.startswith("clsk_test_")
    assert (row.tenant_name, row.environment_name) == ("acme", "prod")
    assert (row.role, row.limits, row.suspended) == (Role.READ_ONLY, limits, False)
    assert (row.expires_at_ns, row.retiring_until_ns) == (None, None)


async def test_names_of_keys_are_taken_in_their_environment(acme: Registry) -> None:
    await acme.environments.create(ACTOR, "dev", tenant="acme")
    await acme.keys.create(ACTOR, tenant="acme", environment="prod", name="ci")
    dev = await acme.keys.create(ACTOR, tenant="acme", environment="dev", name="ci")
    with pytest.raises(AlreadyExists):
        await acme.keys.create(ACTOR, tenant="acme", environment="prod", name="ci")
    with pytest.raises(Ambiguous) as caught:
        await acme.keys.get("ci", tenant="acme")
    assert "environment" in caught.value.next_step
    assert await acme.keys.get("ci", environment="dev") == dev.row
    await acme.keys.delete(ACTOR, "ci", tenant="acme", environment="prod")
    assert await acme.keys.count() == len(await acme.keys.list())
    assert await acme.keys.get("ci") == dev.row
    await acme.keys.create(ACTOR, tenant="acme", environment="prod", name="ci")


async def test_another_tenant_s_key_is_not_there(acme: Registry) -> None:
    await acme.tenants.create(ACTOR, "rival")
    await acme.environments.create(ACTOR, "prod", tenant="rival")
    theirs = (await acme.keys.create(ACTOR, tenant="rival", environment="prod", name="k")).row
    attempts = [
        acme.keys.get("k", tenant="acme"),
        acme.keys.get(theirs.id, tenant="acme"),
        acme.keys.get(theirs.id, tenant="acme", environment="prod"),
        acme.keys.update(ACTOR, theirs.id, tenant="acme", name="x"),
        acme.keys.rotate(ACTOR, theirs.id, tenant="acme"),
        acme.keys.suspend(ACTOR, theirs.id, tenant="acme"),
        acme.keys.resume(ACTOR, theirs.id, tenant="acme"),
        acme.keys.delete(ACTOR, theirs.id, tenant="acme"),
        acme.limits.show(tenant="acme", key=theirs.id),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt
    assert await acme.keys.list(tenant="acme") == []
    assert await acme.keys.get(theirs.id) == theirs


async def test_rotation_keeps_the_key_and_ends_older_secrets(acme: Registry, site: Site) -> None:
    made = await acme.keys.create(ACTOR, tenant="acme", environment="prod", test=True)
    now_ns = site.clock.wall_ns()
    first = await acme.keys.rotate(ACTOR, made.row.id, overlap_s=86_400)
    assert first.row.id == made.row.id
    assert first.secret != made.secret
    assert first.secret.startswith("clsk_test_"), "a test key stays a test key"
    assert first.row.retiring_until_ns == now_ns + DAY_NS
    site.clock.turn(3_600)
    second = await acme.keys.rotate(ACTOR, made.row.id, overlap_s=2 * 86_400)
    assert second.row.retiring_until_ns == site.clock.wall_ns() + 2 * DAY_NS
    third = await acme.keys.rotate(ACTOR, made.row.id, overlap_s=0)
    assert third.row.retiring_until_ns == site.clock.wall_ns(), "0 ends all older ones at once"
    with pytest.raises(InvalidValue):
        await acme.keys.rotate(ACTOR, made.row.id, overlap_s=-1)


async def test_expiry_lies_in_the_future_and_can_be_lifted(acme: Registry, site: Site) -> None:
    now_ns = site.clock.wall_ns()
    made = await acme.keys.create(
        ACTOR, tenant="acme", environment="prod", expires_at_ns=now_ns + DAY_NS
    )
    assert made.row.expires_at_ns == now_ns + DAY_NS
    for past in (now_ns, now_ns - 1):
        with pytest.raises(InvalidValue):
            await acme.keys.create(ACTOR, tenant="acme", environment="prod", expires_at_ns=past)
        with pytest.raises(InvalidValue):
            await acme.keys.update(ACTOR, made.row.id, expires_at_ns=past)
    later = await acme.keys.update(ACTOR, made.row.id, expires_at_ns=now_ns + 2 * DAY_NS)
    assert later.expires_at_ns == now_ns + 2 * DAY_NS
    assert (await acme.keys.update(ACTOR, made.row.id, name="x")).expires_at_ns is not None
    assert (await acme.keys.update(ACTOR, "x", never_expires=True)).expires_at_ns is None


async def test_limits_of_a_key_must_be_limits(acme: Registry) -> None:
    for wrong in (Limits(requests_per_min=0), Limits(tokens_per_day=-5)):
        with pytest.raises(InvalidValue):
            await acme.keys.create(ACTOR, tenant="acme", environment="prod", limits=wrong)
    assert await acme.keys.list() == []


async def test_a_change_whose_caller_left_is_told_all_the_same(acme: Registry) -> None:
    told: list[int] = []
    acme.on_change(lambda snapshot: told.append(snapshot.version))
    task = asyncio.create_task(acme.keys.create(ACTOR, tenant="acme", environment="prod"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await acme.close()
    snapshot = await acme.snapshot()
    assert len(snapshot.credentials) == 1
    assert told == [snapshot.version]


async def test_keys_live_on_in_the_file(tmp_path: Path) -> None:
    first = Site(tmp_path / "registry.db")
    await first.registry.tenants.create(ACTOR, "acme")
    await first.registry.environments.create(ACTOR, "prod", tenant="acme")
    made = await first.registry.keys.create(ACTOR, tenant="acme", environment="prod")
    before = await first.registry.snapshot()
    first.close()
    again = Site(tmp_path / "registry.db")
    assert await again.registry.snapshot() == before
    assert await again.registry.keys.get(made.row.id) == made.row
    again.close()
