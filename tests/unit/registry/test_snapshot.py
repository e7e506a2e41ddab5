"""Snapshots: what the gateway is given, at once, whole, and fast."""

import asyncio
import sqlite3
import time
from functools import partial
from pathlib import Path

import pytest

from appliance.domain.limits import Layer, LayerLimits, Limits, Plan
from appliance.domain.usage import Operation
from appliance.registry.api_keys import NewKey
from appliance.registry.ceiling import Ceiling
from appliance.registry.registry import Registry
from appliance.registry.snapshot import Credential, Role, Snapshot
from appliance.registry.snapshot_source import SnapshotSource
from appliance.registry.store import apply_change, consistently
from appliance.security.api_keys import digest
from tests.fakes.entropy import SeededEntropy
from tests.fakes.registry import ACTOR, PEPPER, Site
from tests.fakes.tiny_gguf import write_tiny_gguf

DAY_NS = 86_400 * 1_000_000_000


@pytest.fixture
async def acme(registry: Registry) -> Registry:
    await registry.tenants.create(ACTOR, "acme", Plan.FREE)
    await registry.environments.create(ACTOR, "prod", tenant="acme", models=["gpt"])
    return registry


async def make_key(registry: Registry, name: str = "k", **more: object) -> NewKey:
    return await registry.keys.create(
        ACTOR,
        tenant="acme",
        environment="prod",
        name=name,
        **more,  # type: ignore[arg-type]  # keyword arguments of create
    )


async def credential(registry: Registry, secret: str) -> Credential | None:
    return (await registry.snapshot()).credentials.get(digest(PEPPER, secret))


async def test_a_credential_has_all_that_hangs_on_a_key(acme: Registry) -> None:
    made = await make_key(acme, role=Role.READ_ONLY, limits=Limits(concurrency=2))
    environment = await acme.environments.get("prod")
    found = await credential(acme, made.secret)
    assert found is not None
    assert found == Credential(
        key_id=made.row.id,
        key_name="k",
        role=Role.READ_ONLY,
        key_suspended=False,
        expires_at_ns=None,
        tenant_id=environment.tenant_id,
        tenant_name="acme",
        tenant_suspended=False,
        plan="free",
        environment_id=environment.id,
        environment_name="prod",
        environment_suspended=False,
        region="local",
        models_allowed=frozenset({"gpt"}),
        layers=(
            LayerLimits(
                Layer.TENANT,
                environment.tenant_id,
                Limits(requests_per_min=60, tokens_per_day=100_000),
            ),
            LayerLimits(Layer.KEY, made.row.id, Limits(concurrency=2)),
        ),
        cache_salt=found.cache_salt,
    )
    assert len(found.cache_salt) == 32


async def test_layers_go_from_the_widest_to_the_narrowest(tmp_path: Path) -> None:
    site = Site(tmp_path / "r.db", global_limits=Limits(requests_per_min=9, concurrency=9))
    registry = site.registry
    await registry.tenants.create(ACTOR, "acme", Plan.FREE)
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    made = await make_key(registry)
    await registry.limits.set(ACTOR, Layer.GLOBAL, {"concurrency": 1})
    await registry.limits.set(ACTOR, Layer.TENANT, {"tokens_per_day": 2}, tenant="acme")
    await registry.limits.set(ACTOR, Layer.ENVIRONMENT, {"tokens_per_min": 3}, environment="prod")
    await registry.limits.set(ACTOR, Layer.KEY, {"requests_per_min": 4}, key="k")
    found = await credential(registry, made.secret)
    assert found is not None
    assert [(layer.layer, layer.scope_id, layer.limits) for layer in found.layers] == [
        (Layer.GLOBAL, "global", Limits(requests_per_min=9, concurrency=1)),
        (Layer.TENANT, found.tenant_id, Limits(requests_per_min=60, tokens_per_day=2)),
        (Layer.ENVIRONMENT, found.environment_id, Limits(tokens_per_min=3)),
        (Layer.KEY, found.key_id, Limits(requests_per_min=4)),
    ]
    await registry.tenants.update(ACTOR, "acme", plan=Plan.ENTERPRISE)
    await registry.limits.set(ACTOR, Layer.TENANT, {"tokens_per_day": None}, tenant="acme")
    await registry.limits.set(ACTOR, Layer.KEY, {"requests_per_min": None}, key="k")
    found = await credential(registry, made.secret)
    assert found is not None
    assert [layer.layer for layer in found.layers] == [Layer.GLOBAL, Layer.ENVIRONMENT]
    site.close()


async def test_suspensions_are_told_and_deletions_are_absent(acme: Registry) -> None:
    made = await make_key(acme)

    async def flags() -> tuple[bool, bool, bool]:
        found = await credential(acme, made.secret)
        assert found is not None
        return found.tenant_suspended, found.environment_suspended, found.key_suspended

    assert await flags() == (False, False, False)
    await acme.keys.suspend(ACTOR, "k")
    assert await flags() == (False, False, True)
    await acme.environments.suspend(ACTOR, "prod")
    assert await flags() == (False, True, True)
    await acme.tenants.suspend(ACTOR, "acme")
    assert await flags() == (True, True, True)
    await acme.keys.resume(ACTOR, "k")
    await acme.environments.resume(ACTOR, "prod")
    await acme.tenants.resume(ACTOR, "acme")
    assert await flags() == (False, False, False)
    await acme.keys.delete(ACTOR, "k")
    assert await credential(acme, made.secret) is None


@pytest.mark.parametrize("noun", ["environments", "tenants"])
async def test_keys_of_what_is_deleted_are_absent(acme: Registry, noun: str) -> None:
    await make_key(acme)
    await getattr(acme, noun).delete(
        ACTOR, {"environments": "prod", "tenants": "acme"}[noun], cascade=True
    )
    assert (await acme.snapshot()).credentials == {}


async def test_a_rotated_secret_ends_with_its_overlap(acme: Registry, site: Site) -> None:
    made = await make_key(acme, expires_at_ns=site.clock.wall_ns() + 10 * DAY_NS)
    turned = await acme.keys.rotate(ACTOR, "k", overlap_s=86_400)
    old, new = await credential(acme, made.secret), await credential(acme, turned.secret)
    assert old is not None
    assert new is not None
    assert old.expires_at_ns == site.clock.wall_ns() + DAY_NS
    assert new.expires_at_ns == site.clock.wall_ns() + 10 * DAY_NS
    assert (old.key_id, old.layers) == (new.key_id, new.layers), "one budget for both"
    at_once = await acme.keys.rotate(ACTOR, "k", overlap_s=0)
    assert await credential(acme, made.secret) is None
    assert await credential(acme, turned.secret) is None
    assert await credential(acme, at_once.secret) is not None


async def test_an_expired_key_is_told_so(acme: Registry, site: Site) -> None:
    ends_ns = site.clock.wall_ns() + DAY_NS
    made = await make_key(acme, expires_at_ns=ends_ns)
    site.clock.turn(2 * 86_400)
    found = await credential(acme, made.secret)
    assert found is not None
    assert found.expires_at_ns == ends_ns


async def test_cache_salts_are_per_tenant_and_lasting(acme: Registry) -> None:
    await acme.tenants.create(ACTOR, "rival")
    await acme.environments.create(ACTOR, "prod", tenant="rival")
    rival = await acme.keys.create(ACTOR, tenant="rival", environment="prod")
    one, two = await make_key(acme, "a"), await make_key(acme, "b")
    salts = []
    for secret in (one.secret, two.secret, rival.secret):
        found = await credential(acme, secret)
        assert found is not None
        salts.append(found.cache_salt)
    assert salts[0] == salts[1] != salts[2]


async def test_deployments_are_entries_by_name(acme: Registry, tmp_path: Path) -> None:
    weights = write_tiny_gguf(tmp_path / "m.gguf")
    model = await acme.models.register(ACTOR, "m", weights)
    await acme.deployments.create(ACTOR, "org/chat", "llamacpp", model="m", context_tokens=512)
    await acme.deployments.create(ACTOR, "gpt", "external", url="http://e", region="eu")
    entries = (await acme.snapshot()).deployments
    assert set(entries) == {"org/chat", "gpt"}
    chat, gpt = entries["org/chat"], entries["gpt"]
    assert (chat.model_id, chat.model_digest, chat.engine) == (model.id, model.digest, "llamacpp")
    assert (chat.context_tokens, chat.region, chat.created_s) == (512, "local", 1_800_000_000)
    assert Operation.CHAT in chat.operations
    assert Operation.EMBEDDINGS not in chat.operations
    assert (gpt.model_id, gpt.model_digest, gpt.context_tokens) == ("", "", None)
    assert gpt.region == "eu"
    await acme.models.suspend(ACTOR, "m")
    assert (await acme.snapshot()).deployments["org/chat"].suspended
    await acme.models.resume(ACTOR, "m")
    await acme.deployments.suspend(ACTOR, "org/chat")
    assert (await acme.snapshot()).deployments["org/chat"].suspended
    await acme.deployments.delete(ACTOR, "org/chat")
    assert set((await acme.snapshot()).deployments) == {"gpt"}


# --- news of changes


async def test_a_change_returns_when_the_subscribers_have_it(acme: Registry) -> None:
    current: list[Snapshot] = []
    acme.on_change(current.append)
    made = await make_key(acme)
    assert digest(PEPPER, made.secret) in current[-1].credentials
    await acme.keys.suspend(ACTOR, "k")
    assert current[-1].credentials[digest(PEPPER, made.secret)].key_suspended
    await acme.keys.delete(ACTOR, "k")
    assert current[-1].credentials == {}
    versions = [snapshot.version for snapshot in current]
    assert versions == sorted(set(versions))


async def test_versions_rise_with_changes_and_only_with_them(acme: Registry) -> None:
    first = await acme.snapshot()
    assert await acme.snapshot() is first, "the same tables, not a copy"
    await acme.tenants.resume(ACTOR, "acme")  # changes nothing
    assert await acme.snapshot() is first
    await acme.tenants.suspend(ACTOR, "acme")
    assert (await acme.snapshot()).version == first.version + 1


async def test_changes_that_come_together_share_their_news(acme: Registry) -> None:
    news: list[int] = []
    acme.on_change(lambda snapshot: news.append(len(snapshot.credentials)))
    await asyncio.gather(*(make_key(acme, f"k{number}") for number in range(200)))
    assert news[-1] == 200
    assert len(news) < 100


async def test_a_change_of_one_key_leaves_the_others_as_they_are(acme: Registry) -> None:
    made = [await make_key(acme, f"k{number}") for number in range(3)]
    before = (await acme.snapshot()).credentials
    await acme.keys.suspend(ACTOR, "k1")
    after = (await acme.snapshot()).credentials
    same = [after[d] is before[d] for d in (digest(PEPPER, key.secret) for key in made)]
    assert same == [True, False, True]
    await acme.nodes.ensure("agent", "node")
    assert (await acme.snapshot()).credentials is after, "a node is nothing to a key"


# --- size


def insert_ten_thousand_keys(connection: sqlite3.Connection) -> None:
    """Rows as `keys.create` writes them, without its price of an audited change for each."""
    (environment_id,) = connection.execute("SELECT id FROM environments").fetchone()
    keys = [f"key_{number:024x}" for number in range(10_000)]
    connection.executemany(
        "INSERT INTO api_keys VALUES (?, ?, ?, 'developer', 0, NULL, 0, NULL)",
        [(key, environment_id, f"k{number}") for number, key in enumerate(keys)],
    )
    connection.executemany(
        "INSERT INTO key_secrets VALUES (?, ?, 'clsk_live_0000…', 0, NULL)",
        [(digest(PEPPER, key), key) for key in keys],
    )
    connection.executemany(
        "INSERT INTO limits VALUES ('key', ?, 60, NULL, NULL, NULL)", [(key,) for key in keys]
    )


async def test_ten_thousand_keys(registry: Registry, site: Site) -> None:
    """Bounds are generous for a busy machine: about 0.15 s and 0.01 s were measured."""
    await registry.tenants.create(ACTOR, "acme", Plan.FREE)
    await registry.environments.create(ACTOR, "prod", tenant="acme")
    await site.database.write(insert_ten_thousand_keys)
    source = SnapshotSource(pepper=PEPPER, global_limits=Limits(), ceiling=Ceiling())
    began = time.perf_counter()
    snapshot = await site.database.read_async(
        partial(consistently, query=lambda c: source.load(c, site.clock.wall_ns()))
    )
    assert len(snapshot.credentials) == 10_000
    assert time.perf_counter() - began < 5
    registry.on_change(lambda _: None)
    await registry.keys.suspend(ACTOR, "k1")
    began = time.perf_counter()
    await registry.keys.suspend(ACTOR, "k2")
    assert time.perf_counter() - began < 1


def test_a_change_can_be_applied_without_a_loop(site: Site) -> None:
    """`cic init` does so, before anything serves."""
    apply = partial(
        apply_change,
        ACTOR,
        site.clock,
        SeededEntropy(),
        lambda change: change.record("create", "thing", "id", "name", None, {"a": 1}),
    )
    assert site.database.submit(apply).result() == (None, 1)
