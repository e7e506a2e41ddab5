"""Limits by layer, regions and their prices, settings of the site."""

from pathlib import Path

import pytest

from appliance.domain.limits import Layer, Limits, Plan
from appliance.registry.errors import AlreadyExists, InUse, InvalidValue, NotFound, OtherSecrets
from appliance.registry.registry import Registry, initialise, open_database
from appliance.security.seal import Seal
from appliance.storage.database import migrate
from appliance.storage.errors import SchemaTooNew
from tests.fakes.clock import ManualClock
from tests.fakes.registry import ACTOR, PEPPER, SEAL_KEY, Site


@pytest.fixture
async def acme(registry: Registry) -> Registry:
    await registry.tenants.create(ACTOR, "acme", Plan.FREE)
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    await registry.keys.create(ACTOR, tenant="acme", environment="prod", name="k")
    return registry


# --- limits


async def test_all_layers_of_a_key(acme: Registry) -> None:
    rows = await acme.limits.show(key="k")
    assert [(row.layer, row.name, row.base_source) for row in rows] == [
        (Layer.GLOBAL, "global", ""),
        (Layer.TENANT, "acme", "plan free"),
        (Layer.ENVIRONMENT, "prod", ""),
        (Layer.KEY, "k", ""),
    ]
    assert rows[1].in_force == Limits(requests_per_min=60, tokens_per_day=100_000)
    assert [r.layer for r in await acme.limits.show(environment="prod")] == [
        Layer.GLOBAL,
        Layer.TENANT,
        Layer.ENVIRONMENT,
    ]
    assert [r.layer for r in await acme.limits.show(tenant="acme")] == [Layer.GLOBAL, Layer.TENANT]
    assert [r.layer for r in await acme.limits.show()] == [Layer.GLOBAL]


async def test_what_is_set_lies_over_the_plan_and_can_be_taken_away(acme: Registry) -> None:
    change = acme.limits.set
    row = await change(
        ACTOR, Layer.TENANT, {"requests_per_min": 5, "concurrency": 2}, tenant="acme"
    )
    assert row.in_force == Limits(requests_per_min=5, tokens_per_day=100_000, concurrency=2)
    row = await change(ACTOR, Layer.TENANT, {"requests_per_min": None}, tenant="acme")
    assert row.set == Limits(concurrency=2), "a name that is absent stays"
    assert row.in_force == Limits(requests_per_min=60, tokens_per_day=100_000, concurrency=2)
    assert (await acme.tenants.get("acme")).limits == Limits(concurrency=2)
    await change(ACTOR, Layer.TENANT, {"concurrency": None}, tenant="acme")
    assert (await acme.tenants.get("acme")).limits.unlimited
    updates = [e for e in await acme.audit.list() if e.object_kind == "tenant limits"]
    await change(ACTOR, Layer.TENANT, {"concurrency": None}, tenant="acme")
    assert len([e for e in await acme.audit.list() if e.object_kind == "tenant limits"]) == len(
        updates
    )


async def test_each_layer_is_set_by_itself(acme: Registry) -> None:
    await acme.limits.set(ACTOR, Layer.GLOBAL, {"concurrency": 100})
    await acme.limits.set(ACTOR, Layer.ENVIRONMENT, {"tokens_per_min": 7}, environment="prod")
    await acme.limits.set(ACTOR, Layer.KEY, {"tokens_per_day": 9}, key="k", tenant="acme")
    in_force = [row.in_force for row in await acme.limits.show(key="k")]
    assert in_force == [
        Limits(concurrency=100),
        Limits(requests_per_min=60, tokens_per_day=100_000),
        Limits(tokens_per_min=7),
        Limits(tokens_per_day=9),
    ]
    assert (await acme.keys.get("k")).limits == Limits(tokens_per_day=9)
    assert (await acme.environments.get("prod")).limits == Limits(tokens_per_min=7)


async def test_limits_that_are_refused(acme: Registry) -> None:
    for wrong in (0, -1, 10**16):
        with pytest.raises(InvalidValue):
            await acme.limits.set(ACTOR, Layer.KEY, {"tokens_per_min": wrong}, key="k")
    for layer in (Layer.TENANT, Layer.ENVIRONMENT, Layer.KEY):
        with pytest.raises(InvalidValue, match="whose"):
            await acme.limits.set(ACTOR, layer, {"tokens_per_min": 1})
    with pytest.raises(NotFound):
        await acme.limits.set(ACTOR, Layer.KEY, {"tokens_per_min": 1}, key="absent")
    assert (await acme.keys.get("k")).limits.unlimited


async def test_settings_give_the_global_base(tmp_path: Path) -> None:
    site = Site(tmp_path / "r.db", global_limits=Limits(requests_per_min=10, concurrency=5))
    (row,) = await site.registry.limits.show()
    assert (row.base_source, row.in_force) == (
        "settings",
        Limits(requests_per_min=10, concurrency=5),
    )
    row = await site.registry.limits.set(ACTOR, Layer.GLOBAL, {"concurrency": 50})
    assert row.in_force == Limits(requests_per_min=10, concurrency=50)
    site.close()


async def test_a_deleted_scope_s_limits_do_not_come_back(acme: Registry) -> None:
    await acme.limits.set(ACTOR, Layer.TENANT, {"concurrency": 1}, tenant="acme")
    await acme.tenants.delete(ACTOR, "acme", cascade=True)
    assert (await acme.tenants.create(ACTOR, "acme")).limits.unlimited
    assert (await acme.tenants.get("acme")).limits.unlimited


# --- regions


async def test_regions_have_a_price(registry: Registry) -> None:
    await registry.regions.create(ACTOR, "eu", 12_000)
    assert (await registry.regions.get("eu")).multiplier_bp == 12_000
    assert (await registry.regions.update(ACTOR, "eu", multiplier_bp=7_000)).multiplier_bp == 7_000
    for wrong in (-1, 1_000_001):
        with pytest.raises(InvalidValue):
            await registry.regions.update(ACTOR, "eu", multiplier_bp=wrong)
        with pytest.raises(InvalidValue):
            await registry.regions.create(ACTOR, "other", wrong)
    with pytest.raises(AlreadyExists):
        await registry.regions.create(ACTOR, "eu")
    with pytest.raises(NotFound):
        await registry.regions.get("us")


async def test_a_region_goes_when_nothing_is_in_it(acme: Registry) -> None:
    await acme.regions.create(ACTOR, "eu")
    await acme.environments.create(ACTOR, "e", tenant="acme", region="eu")
    await acme.deployments.create(ACTOR, "d", "external", url="http://e", region="eu")
    await acme.nodes.create(ACTOR, "n", region="eu")
    for leave in (
        acme.environments.update(ACTOR, "e", region="local"),
        acme.deployments.delete(ACTOR, "d"),
        acme.nodes.delete(ACTOR, "n"),
    ):
        with pytest.raises(InUse):
            await acme.regions.delete(ACTOR, "eu")
        await leave
    await acme.regions.delete(ACTOR, "eu")
    assert [region.name for region in await acme.regions.list()] == ["local"]
    again = await acme.regions.create(ACTOR, "eu", 9_000)
    assert await acme.regions.get("eu") == again


# --- settings of the site


async def test_settings_of_the_site(registry: Registry) -> None:
    settings = registry.settings
    assert await settings.get("banner") is None
    await settings.set(ACTOR, "banner", "hello")
    await settings.set(ACTOR, "banner", "hello")
    await settings.set(ACTOR, "banner", "hello again")
    await settings.set(ACTOR, "a", "")
    assert [await settings.get(name) for name in ("a", "banner")] == ["", "hello again"]
    await settings.set(ACTOR, "banner", None)
    await settings.set(ACTOR, "banner", None)
    assert await settings.get("banner") is None
    actions = [e.action for e in await registry.audit.list()]
    assert actions == ["create", "update", "create", "delete"]
    with pytest.raises(InvalidValue):
        await settings.set(ACTOR, "no name", "x")
    with pytest.raises(InvalidValue):
        await settings.set(ACTOR, "long", "x" * 5_000)


# --- the file


def test_a_site_is_initialised_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    for _ in range(2):
        initialise(path, actor=ACTOR, region="eu", clock=ManualClock())
    database = open_database(path)
    rows = database.read(
        lambda connection: connection.execute("SELECT actor, object_name FROM audit").fetchall()
    )
    assert [tuple(row) for row in rows] == [(ACTOR, "eu")]
    database.close()


async def test_secrets_of_another_site_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    for pepper, fits in ((PEPPER, True), (PEPPER, True), (b"q" * 32, False)):
        database = open_database(path)
        registry = Registry(database, pepper=pepper, seal=Seal(SEAL_KEY), clock=ManualClock())
        if fits:
            await registry.check_pepper("appliance")
        else:
            with pytest.raises(OtherSecrets) as caught:
                await registry.check_pepper("appliance")
            assert "same backup" in caught.value.next_step
        entries = await registry.audit.list()
        assert [(e.actor, e.action) for e in entries] == [("appliance", "create")]
        database.close()


def test_the_registry_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    initialise(path, actor=ACTOR, region="eu", clock=ManualClock())
    database = open_database(path)
    database.submit(
        lambda connection: connection.execute(
            "INSERT INTO _migrations (name) VALUES ('9999 future')"
        )
    ).result()
    database.close()
    with pytest.raises(SchemaTooNew, match="9999 future"):
        open_database(path)
    with pytest.raises(SchemaTooNew):
        migrate(path, [])
