"""Which plans of the vendor are applied, and that each is applied once."""

from pathlib import Path

from appliance.domain.clock import iso
from appliance.manifests.documents import TenantPlan
from appliance.registry.errors import NotFound
from appliance.sync.inbox import bring
from appliance.sync.plans import apply_due, due
from tests.fakes.clock import START_NS
from tests.fakes.sealed_site import sealed_site
from tests.fakes.shipping import Wire, vendor_of
from tests.fakes.vendor import DAY_NS


def plan(tenant: str, name: str, days: int) -> TenantPlan:
    return TenantPlan(tenant_id=tenant, plan=name, since=iso(START_NS + days * DAY_NS))


PLANS = [plan("a", "free", -9), plan("a", "business", -1), plan("a", "enterprise", 5)]


def test_the_newest_that_has_begun_is_due() -> None:
    assert due(PLANS, {}, START_NS) == [PLANS[1]]
    assert due(PLANS, {}, START_NS + 6 * DAY_NS) == [PLANS[2]]
    assert due([plan("b", "free", 1)], {}, START_NS) == []


class Registry:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []

    async def set_plan(self, actor: str, tenant_id: str, name: str) -> None:
        self.calls.append((actor, tenant_id, name))
        if tenant_id == "gone":
            raise NotFound("There is no such tenant.")


async def test_a_plan_is_applied_once_and_a_tenant_that_is_gone_holds_up_nobody(
    tmp_path: Path,
) -> None:
    site = sealed_site(tmp_path, manifests=1)
    wire = Wire(site, vendor_of(site))
    vendor = wire.control_plane.vendor
    with site.writing() as connection:
        first = vendor.plans(1, [plan("gone", "free", -1), *PLANS])
        bring(connection, [vendor.sign(first)], vendor.key.public, START_NS)
    registry = Registry()
    for _ in range(2):
        await apply_due(wire.store(), registry, START_NS)
    assert registry.calls == [
        ("control plane", "gone", "free"),
        ("control plane", "a", "business"),
    ]
    await apply_due(wire.store(), registry, START_NS + 6 * DAY_NS)
    assert registry.calls[2:] == [("control plane", "a", "enterprise")]
