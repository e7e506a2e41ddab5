"""The licence as the running site lives with it: kept over restarts, refusing, slowing down."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.manifests import archive
from appliance.sync.entitlements import SiteSize
from appliance.sync.errors import ManagementFrozen
from appliance.sync.inbox import bring
from appliance.sync.licence import Licence
from tests.fakes.clock import ManualClock
from tests.fakes.sealed_site import sealed_site
from tests.fakes.shipping import Wire, vendor_of

DAY_S = 86_400


@dataclass
class Life:
    """A site with an entitlement of 30 days, 14 of grace, and a throttle of 50 tokens a second."""

    wire: Wire
    clock: ManualClock
    size: SiteSize = field(default_factory=SiteSize)
    throttles: list[int | None] = field(default_factory=list)

    def licence(self) -> Licence:
        """As after a start: it knows only what is written."""

        async def measure() -> SiteSize:
            return self.size

        async def throttle(tokens_per_s: int | None) -> None:
            self.throttles.append(tokens_per_s)

        return Licence(self.wire.store(), self.clock, measure, throttle)

    def install(self, *, lease_days: int = 30) -> None:
        vendor = self.wire.control_plane.vendor
        made = vendor.entitlement(
            self.clock.wall_ns(), lease_days=lease_days, throttle_tokens_per_s=50, gpu_count=2
        )
        with self.wire.site.writing() as connection:
            (outcome,) = bring(
                connection, [vendor.sign(made)], vendor.key.public, self.clock.wall_ns()
            )
        assert outcome.outcome == "applied"

    async def pass_days(self, licence: Licence, days: int) -> None:
        for _ in range(days):
            self.clock.turn(DAY_S)
            await licence.look()


@pytest.fixture
def life(tmp_path: Path) -> Life:
    site = sealed_site(tmp_path, manifests=1)
    return Life(Wire(site, vendor_of(site)), ManualClock(site.now_ns))


async def test_without_an_entitlement_nothing_is_refused_and_nothing_written(life: Life) -> None:
    licence = life.licence()
    before = life.wire.state
    await life.pass_days(licence, 3)
    licence.check_changes()
    assert licence.status().stage == "none"
    assert (life.wire.state, life.throttles) == (before, [])


async def test_it_warns_freezes_throttles_and_is_renewed(life: Life) -> None:
    life.install()
    licence = life.licence()
    await licence.look()
    assert licence.status().stage == "active"
    await life.pass_days(licence, 25)
    assert (licence.status().stage, licence.status().days_left) == ("warning", 5)
    await life.pass_days(licence, 10)
    licence.check_changes()
    assert licence.status().stage == "grace"
    await life.pass_days(licence, 10)
    with pytest.raises(ManagementFrozen, match="Deleting, suspending") as caught:
        licence.check_changes()
    assert "Renew it" in caught.value.next_step
    assert life.throttles == []
    await life.pass_days(licence, 7)
    assert (licence.status().stage, life.throttles) == ("throttled", [50])
    life.install()
    await licence.look()
    licence.check_changes()
    assert (licence.status().stage, life.throttles) == ("active", [50, None])


async def test_a_restart_forgets_neither_the_throttle_nor_the_warning(life: Life) -> None:
    life.install()
    licence = life.licence()
    await life.pass_days(licence, 60)
    assert life.throttles == [50]
    after = life.licence()
    await after.look()
    assert (after.status().stage, life.throttles) == ("throttled", [50, 50])


async def test_a_clock_turned_back_over_a_restart_gains_nothing(life: Life) -> None:
    life.install()
    await life.pass_days(life.licence(), 60)
    life.clock.turn(-50 * DAY_S)
    back = life.licence()
    await back.look()
    assert back.status().stage == "throttled"
    with pytest.raises(ManagementFrozen):
        back.check_changes()


async def test_a_site_that_was_off_for_a_year_is_warned_first(life: Life) -> None:
    life.install()
    await life.licence().look()
    life.clock.turn(365 * DAY_S)
    licence = life.licence()
    await licence.look()
    licence.check_changes()
    assert (licence.status().stage, licence.status().days_left) == ("grace", 1)
    assert "management changes are refused" in licence.status().message
    await life.pass_days(licence, 1)
    with pytest.raises(ManagementFrozen):
        licence.check_changes()


async def test_a_receipt_prolongs_it(life: Life) -> None:
    life.install(lease_days=5)
    licence = life.licence()
    await life.pass_days(licence, 6)
    assert licence.status().stage == "grace"
    control_plane = life.wire.control_plane
    control_plane.now_ns = life.clock.wall_ns()
    with life.wire.site.writing() as connection:
        bring(connection, [control_plane.receipt()], control_plane.vendor.key.public, 0)
    await licence.look()
    assert (licence.status().stage, licence.status().days_left) == ("active", 30)


async def test_what_goes_beyond_it_is_shown(life: Life) -> None:
    life.install()
    life.size = SiteSize(gpus=3)
    licence = life.licence()
    await licence.look()
    status = licence.status()
    assert (status.gpus, status.gpu_count) == (3, 2)
    assert [each.what for each in status.exceeded] == ["gpus"]


async def test_the_clock_is_not_written_with_every_look(life: Life) -> None:
    life.install()
    licence = life.licence()
    await licence.look()
    with life.wire.site.reading() as connection:
        before = archive.sync_state(connection).lease_seen_ns
    life.clock.turn(30)
    await licence.look()
    assert life.wire.state.lease_seen_ns == before
    life.clock.turn(31)
    await licence.look()
    assert life.wire.state.lease_seen_ns == life.clock.wall_ns()
