"""Random histories of changes: what must hold after each of them, whatever came before."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.limits import UNLIMITED, Layer, Plan
from appliance.registry.ceiling import Ceiling
from appliance.registry.errors import RegistryError
from appliance.registry.registry import Registry
from appliance.registry.snapshot import Snapshot
from appliance.registry.snapshot_source import SnapshotSource
from appliance.registry.store import consistently
from tests.fakes.registry import ACTOR, PEPPER, Site

# Few names, so that histories meet themselves.
names = st.sampled_from(["a", "b", "c"])
verbs = st.sampled_from(
    [
        "create",
        "rename",
        "delete",
        "cascade",
        "suspend",
        "resume",
        "rotate",
        "limit",
        "plan",
        "models",
        "deploy",
        "undeploy",
        "node",
        "turn",
    ]
)
nouns = st.sampled_from(["tenants", "environments", "keys"])
steps = st.tuples(verbs, nouns, names, names, names, names)


Call = Coroutine[Any, Any, object]


def of_a_noun(
    registry: Registry, noun: str, tenant: str, environment: str, key: str, new: str
) -> dict[str, Callable[[], Call]]:
    """What can be done to a tenant, an environment or a key, by verb."""
    ref, scope = {
        "tenants": (tenant, {}),
        "environments": (environment, {"tenant": tenant}),
        "keys": (key, {"tenant": tenant, "environment": environment}),
    }[noun]
    table = getattr(registry, noun)
    named = {"name": ref} if noun == "keys" else {}
    cascade = {} if noun == "keys" else {"cascade": True}
    layer = Layer(noun.removesuffix("s"))
    limited = {**scope, layer.value: ref}
    return {
        "create": lambda: table.create(ACTOR, *([] if named else [ref]), **named, **scope),
        "rename": lambda: table.update(ACTOR, ref, name=new, **scope),
        "delete": lambda: table.delete(ACTOR, ref, **scope),
        "cascade": lambda: table.delete(ACTOR, ref, **scope, **cascade),
        "suspend": lambda: table.suspend(ACTOR, ref, **scope),
        "resume": lambda: table.resume(ACTOR, ref, **scope),
        "limit": lambda: registry.limits.set(ACTOR, layer, {"concurrency": ord(new)}, **limited),
    }


def of_the_rest(
    registry: Registry, tenant: str, environment: str, key: str, new: str
) -> dict[str, Callable[[], Call]]:
    return {
        "rotate": lambda: registry.keys.rotate(ACTOR, key, tenant=tenant, environment=environment),
        "plan": lambda: registry.tenants.update(ACTOR, tenant, plan=list(Plan)[ord(new) % 4]),
        "models": lambda: registry.environments.update(
            ACTOR, environment, tenant=tenant, models=[new]
        ),
        "deploy": lambda: registry.deployments.create(ACTOR, new, "external", url="http://engine"),
        "undeploy": lambda: registry.deployments.delete(ACTOR, new),
        "node": lambda: registry.nodes.ensure(ACTOR, new),
    }


async def refusal(call: Call) -> RegistryError | None:
    try:
        await call
    except RegistryError as error:
        return error
    return None


async def check_names(registry: Registry) -> None:
    """No two living objects share a name where names are unique, and all is where it says."""
    tenants = await registry.tenants.list()
    environments = await registry.environments.list()
    keys = await registry.keys.list()
    for taken in (
        Counter(row.name for row in tenants),
        Counter((row.tenant_id, row.name) for row in environments),
        Counter((row.environment_id, row.name) for row in keys),
    ):
        assert set(taken.values()) <= {1}
    assert {row.tenant_id for row in environments} <= {row.id for row in tenants}
    assert {row.environment_id for row in keys} <= {row.id for row in environments}
    for key in keys:
        assert key == await registry.keys.get(
            key.name, tenant=key.tenant_name, environment=key.environment_name
        )


async def check_snapshot(site: Site, told: list[Snapshot]) -> None:
    """What was read step by step is what is read at once, and what subscribers have."""
    registry = site.registry
    stepwise = await registry.snapshot()
    source = SnapshotSource(pepper=PEPPER, global_limits=UNLIMITED, ceiling=Ceiling())
    now_ns = site.clock.wall_ns()
    at_once = await site.database.read_async(
        lambda connection: consistently(connection, lambda c: source.load(c, now_ns))
    )
    assert stepwise.deployments == at_once.deployments
    # Secrets whose overlap ended since they were read may still be there, marked as ended.
    ended = {
        digest: c
        for digest, c in stepwise.credentials.items()
        if c.expires_at_ns is not None and c.expires_at_ns <= now_ns
    }
    lasting = {d: c for d, c in stepwise.credentials.items() if d not in ended}
    assert lasting == at_once.credentials
    assert {c.key_id for c in lasting.values()} == {row.id for row in await registry.keys.list()}
    if told:
        assert told[-1].version == stepwise.version


async def live(path: Path, history: list[tuple[str, ...]]) -> None:
    site = Site(path)
    told: list[Snapshot] = []
    site.registry.on_change(told.append)
    for verb, noun, *refs in history:
        if verb == "turn":
            site.clock.turn(20_000)  # seconds: five of them are more than an overlap
            continue
        calls = of_a_noun(site.registry, noun, *refs) | of_the_rest(site.registry, *refs)
        before = await site.registry.audit.list()
        refused = await refusal(calls[verb]())
        if refused is not None:
            assert refused.next_step
            assert await site.registry.audit.list() == before, "refused: nothing has changed"
        await check_snapshot(site, told)
    await check_names(site.registry)
    verdict = await site.registry.audit.verify()
    assert verdict.ok, verdict.problems
    await site.registry.close()
    site.close()


@given(history=st.lists(steps, max_size=25))
@settings(max_examples=40, deadline=None)
def test_histories(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, ...]]
) -> None:
    asyncio.run(live(tmp_path_factory.mktemp("history") / "registry.db", history))


def test_a_long_life(tmp_path: Path) -> None:
    """One history that is known to reach everything: each verb succeeds at least once in it."""
    base = [
        ("create", "tenants", "a", "a", "a", "b"),
        ("create", "environments", "a", "a", "a", "b"),
        ("create", "keys", "a", "a", "a", "b"),
    ]
    each = [
        (verb, noun, "a", "a", "a", "a")
        for verb in ("limit", "suspend", "resume", "rotate", "plan", "models", "node", "turn")
        for noun in ("tenants", "environments", "keys")
    ]
    ends = [
        ("deploy", "keys", "a", "a", "a", "c"),
        ("rename", "keys", "a", "a", "a", "c"),
        ("delete", "keys", "a", "a", "c", "c"),
        ("undeploy", "keys", "a", "a", "a", "c"),
        ("cascade", "tenants", "a", "a", "a", "a"),
    ]
    asyncio.run(live(tmp_path / "registry.db", [*base, *each, *ends, *base]))
