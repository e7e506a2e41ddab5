"""Tenants and environments: names, suspension, deletion, and who may see whose."""

import pytest

from appliance.domain.limits import Plan
from appliance.registry.errors import (
    AlreadyExists,
    Ambiguous,
    InUse,
    InvalidValue,
    NotFound,
    RegistryError,
)
from appliance.registry.registry import Registry
from tests.fakes.registry import ACTOR


async def test_a_tenant_is_found_by_name_and_by_id(registry: Registry) -> None:
    row = await registry.tenants.create(ACTOR, "acme", Plan.FREE)
    assert await registry.tenants.get("acme") == row
    assert await registry.tenants.get(row.id) == row
    assert (row.plan, row.suspended, row.limits.unlimited) == (Plan.FREE, False, True)
    with pytest.raises(NotFound) as caught:
        await registry.tenants.get("acme2")
    assert caught.value.next_step == "See `cic tenant list`."


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        ".a",
        "a b",
        "a/b",
        "a:b",
        "ä",
        "a\n",
        "a\x00",
        "x" * 64,
        "ten_0123456789abcdef01234567",
        "' OR 1=1",
    ],
)
async def test_names_that_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        await registry.tenants.create(ACTOR, name)
    assert caught.value.code == "invalid_value"
    assert caught.value.next_step
    assert await registry.tenants.list() == []
    assert await registry.audit.list() == []


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-d", "x" * 63, "ten_short"])
async def test_names_that_are_accepted(registry: Registry, name: str) -> None:
    assert (await registry.tenants.create(ACTOR, name)).name == name


async def test_a_name_is_taken_among_the_living_only(registry: Registry) -> None:
    first = await registry.tenants.create(ACTOR, "acme")
    with pytest.raises(AlreadyExists):
        await registry.tenants.create(ACTOR, "acme")
    other = await registry.tenants.create(ACTOR, "other")
    with pytest.raises(AlreadyExists):
        await registry.tenants.update(ACTOR, "other", name="acme")
    await registry.tenants.update(ACTOR, "other", name="other")  # its own name is free to keep
    await registry.tenants.delete(ACTOR, "acme")
    renamed = await registry.tenants.update(ACTOR, other.id, name="acme")
    assert renamed.id == other.id
    with pytest.raises(NotFound):
        await registry.tenants.get(first.id)


async def test_suspending_and_resuming_say_so_once(registry: Registry) -> None:
    await registry.tenants.create(ACTOR, "acme")
    assert (await registry.tenants.suspend(ACTOR, "acme")).suspended
    assert (await registry.tenants.suspend(ACTOR, "acme")).suspended
    assert not (await registry.tenants.resume(ACTOR, "acme")).suspended
    actions = [entry.action for entry in await registry.audit.list()]
    assert actions == ["create", "suspend", "resume"], "what changed nothing is not entered"


async def test_a_tenant_with_environments_goes_only_with_all_it_has(registry: Registry) -> None:
    await registry.tenants.create(ACTOR, "acme")
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    await registry.keys.create(ACTOR, tenant="acme", environment="prod", name="k")
    with pytest.raises(InUse) as caught:
        await registry.tenants.delete(ACTOR, "acme")
    assert "environments: 1" in caught.value.message
    assert "cic tenant suspend acme" in caught.value.next_step
    with pytest.raises(InUse):
        await registry.environments.delete(ACTOR, "prod")
    assert len(await registry.keys.list()) == 1
    await registry.tenants.delete(ACTOR, "acme", cascade=True)
    assert await registry.tenants.list() == []
    assert await registry.environments.list() == []
    assert await registry.keys.list() == []
    deleted = [e.object_kind for e in await registry.audit.list() if e.action == "delete"]
    assert deleted == ["key", "environment", "tenant"], "each of them is in the audit"


async def test_an_environment_goes_with_its_keys_when_told(registry: Registry) -> None:
    await registry.tenants.create(ACTOR, "acme")
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    await registry.keys.create(ACTOR, tenant="acme", environment="prod")
    await registry.environments.delete(ACTOR, "prod", cascade=True)
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    assert await registry.keys.list(tenant="acme", environment="prod") == []


async def test_equal_names_of_two_tenants_need_their_tenant(registry: Registry) -> None:
    for tenant in ("a", "b"):
        await registry.tenants.create(ACTOR, tenant)
        await registry.environments.create(ACTOR, "prod", tenant=tenant)
        await registry.environments.create(ACTOR, f"only-{tenant}", tenant=tenant)
    with pytest.raises(Ambiguous) as caught:
        await registry.environments.suspend(ACTOR, "prod")
    assert "its tenant" in caught.value.next_step
    assert (await registry.environments.get("prod", tenant="b")).tenant_name == "b"
    assert (await registry.environments.get("only-a")).tenant_name == "a"
    assert [(row.tenant_name, row.name) for row in await registry.environments.list()] == [
        ("a", "only-a"),
        ("a", "prod"),
        ("b", "only-b"),
        ("b", "prod"),
    ]
    assert [row.name for row in await registry.environments.list(tenant="b")] == ["only-b", "prod"]


async def test_another_tenant_s_environment_is_not_there(registry: Registry) -> None:
    for tenant in ("a", "b"):
        await registry.tenants.create(ACTOR, tenant)
    theirs = await registry.environments.create(ACTOR, "prod", tenant="b")
    attempts = [
        registry.environments.get(theirs.id, tenant="a"),
        registry.environments.update(ACTOR, theirs.id, tenant="a", name="mine"),
        registry.environments.suspend(ACTOR, theirs.id, tenant="a"),
        registry.environments.delete(ACTOR, theirs.id, tenant="a", cascade=True),
        registry.keys.create(ACTOR, tenant="a", environment=theirs.id),
        registry.keys.list(tenant="a", environment=theirs.id),
        registry.limits.show(tenant="a", environment=theirs.id),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt
    assert await registry.environments.get(theirs.id) == theirs


async def test_an_environment_is_in_the_site_s_region_unless_told(registry: Registry) -> None:
    await registry.tenants.create(ACTOR, "acme")
    assert (await registry.environments.create(ACTOR, "a", tenant="acme")).region == "local"
    there = await registry.environments.create(ACTOR, "b", tenant="acme", region="eu-west")
    assert there.region == "eu-west"
    regions = {row.name: row.multiplier_bp for row in await registry.regions.list()}
    assert regions == {"local": 10_000, "eu-west": 10_000}
    with pytest.raises(InvalidValue):
        await registry.environments.create(ACTOR, "c", tenant="acme", region="no such place")


async def test_allowed_models_are_a_sorted_set_and_can_be_lifted(registry: Registry) -> None:
    await registry.tenants.create(ACTOR, "acme")
    names = ["meta-llama/Llama-3-8B", "b", "b"]
    row = await registry.environments.create(ACTOR, "prod", tenant="acme", models=names)
    assert row.models == ("b", "meta-llama/Llama-3-8B")
    assert (await registry.environments.update(ACTOR, "prod", name="p2")).models == row.models
    assert (await registry.environments.update(ACTOR, "p2", models=[])).models == ()
    assert (await registry.environments.update(ACTOR, "p2", all_models=True)).models is None
    with pytest.raises(InvalidValue):
        await registry.environments.update(ACTOR, "p2", models=["not a name"])


async def test_every_error_has_a_stable_code() -> None:
    def tree(kind: type[RegistryError]) -> list[str]:
        return [kind.code, *(code for child in kind.__subclasses__() for code in tree(child))]

    codes = tree(RegistryError)
    assert len(set(codes)) == len(codes)


async def test_an_error_in_a_change_changes_nothing(registry: Registry) -> None:
    """The region of a refused environment is not registered either."""
    await registry.tenants.create(ACTOR, "acme")
    before = await registry.audit.list()
    with pytest.raises(InvalidValue):
        await registry.environments.create(
            ACTOR, "prod", tenant="acme", region="new", models=["not a name"]
        )
    assert await registry.regions.list() == []
    assert await registry.audit.list() == before
