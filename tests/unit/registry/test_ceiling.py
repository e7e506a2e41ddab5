"""A bound over the global layer: in the tables at once, in what is shown, and gone again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.domain.limits import Layer, Limits
from appliance.registry.ceiling import Ceiling
from appliance.registry.snapshot import Snapshot
from tests.fakes.registry import ACTOR, Site


@pytest.mark.parametrize(
    ("bound", "set_there", "in_force"),
    [(None, 500, 500), (600, 500, 500), (400, 500, 400), (400, None, 400), (None, None, None)],
)
def test_the_lower_one_counts(
    bound: int | None, set_there: int | None, in_force: int | None
) -> None:
    ceiling = Ceiling()
    ceiling.tokens_per_min = bound
    before = Limits(requests_per_min=7, tokens_per_min=set_there)
    assert ceiling.over(before) == Limits(requests_per_min=7, tokens_per_min=in_force)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "registry.db", global_limits=Limits(tokens_per_min=90_000))
    yield site
    site.close()


def whole(snapshot: Snapshot) -> Limits:
    (credential,) = snapshot.credentials.values()
    layer = credential.layers[0]
    assert layer.layer is Layer.GLOBAL
    return layer.limits


async def test_every_key_meets_the_bound_at_once_and_no_more_when_it_is_gone(site: Site) -> None:
    registry = site.registry
    tenant = await registry.tenants.create(ACTOR, "acme")
    await registry.environments.create(ACTOR, "prod", tenant=tenant.id)
    await registry.keys.create(ACTOR, tenant=tenant.id, environment="prod")
    told: list[Snapshot] = []
    registry.on_change(told.append)
    await registry.bound_tokens(3_000)
    assert whole(told[-1]).tokens_per_min == 3_000
    (shown,) = await registry.limits.show()
    assert (shown.in_force.tokens_per_min, shown.bounded) == (3_000, True)
    await registry.limits.set(ACTOR, Layer.GLOBAL, {"tokens_per_min": 1_000})
    assert whole(told[-1]).tokens_per_min == 1_000  # what is set lower stays
    count = len(told)
    await registry.bound_tokens(3_000)
    assert len(told) == count  # nothing new, nobody is told
    await registry.limits.set(ACTOR, Layer.GLOBAL, {"tokens_per_min": None})
    assert whole(told[-1]).tokens_per_min == 3_000
    await registry.bound_tokens(None)
    assert whole(told[-1]).tokens_per_min == 90_000
    (shown,) = await registry.limits.show()
    assert not shown.bounded
