"""Copies of a site: found on first contact, and brought back by an epoch grant without a token lost
or counted twice.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.manifests import archive
from appliance.manifests.starts import record_start
from appliance.sync.identity import current, prepare_key
from appliance.wire.home import find_home
from tests.fakes.control_plane import ControlPlane, served
from tests.fakes.entropy import SeededEntropy
from tests.fakes.sealed_site import SealedSite, sealed_site
from tests.fakes.shipping import Wire, vendor_of

_S = 1_000_000_000


@dataclass
class Copies:
    """The site, and where a backup of it is."""

    wire: Wire
    backup: Path

    @property
    def control_plane(self) -> ControlPlane:
        return self.wire.control_plane

    def restored(self, later_s: int = 3_600) -> Wire:
        """The backup at work again, so much later than the site's last moment."""
        folder = self.backup.with_name("restored")
        shutil.copytree(self.backup, folder)
        home = find_home(str(folder))
        now_ns = self.wire.site.now_ns + later_s * _S
        site = SealedSite(home, self.wire.site.identity, now_ns, 20)
        site._numbers = iter(range(10_000, 20_000))
        start(site)
        return Wire(site, self.control_plane)


def start(site: SealedSite) -> None:
    site.now_ns += _S
    with site.writing() as connection:
        record_start(connection, site.now_ns, site.boot_id, 0)


def adopt(site: SealedSite) -> None:
    with site.reading() as connection:
        site.identity = current(site.home.secrets, connection)


async def granted(wire: Wire) -> None:
    """A person asks for a grant and gets it by the wire."""
    key = prepare_key(wire.site.home.secrets, SeededEntropy(77)).public
    wire.control_plane.grant(key)
    await wire.exchange()
    adopt(wire.site)


@asynccontextmanager
async def two(folder: Path, *, unsealed: int = 3, after: int = 2) -> AsyncIterator[Copies]:
    """Three manifests are reported, `unsealed` records are recorded, then comes the backup; the
    site then goes on for `after` manifests and reports them.
    """
    site = sealed_site(folder, manifests=0)
    start(site)
    for _ in range(3):
        site.record(4)
        site.seal()
    async with served(vendor_of(site)) as control_plane:
        wire = Wire(site, control_plane)
        wire.enrolled()
        await wire.exchange()
        if unsealed:
            site.record(unsealed)
        backup = folder / "backup"
        shutil.copytree(site.home.state, backup)
        for _ in range(after):
            site.record(4)
            site.seal()
        await wire.exchange()
        yield Copies(wire, backup)


async def test_a_restored_copy_is_found_before_it_sends_anything(tmp_path: Path) -> None:
    async with two(tmp_path) as copies:
        wire = copies.restored()
        await wire.exchange()
        state = wire.state
        assert state.frozen
        assert state.alarm == "beyond_sealed"
        assert "restored" in state.alarm_detail
        assert "cic sync request --new-key" in state.next_step
        assert state.accepted_through == 3  # nothing of the other copy's is believed


@pytest.mark.parametrize("unsealed", [0, 3])
@pytest.mark.parametrize("sealed_before_the_grant", [False, True])
async def test_a_grant_brings_it_back_and_every_token_counts_once(
    tmp_path: Path, *, unsealed: int, sealed_before_the_grant: bool
) -> None:
    async with two(tmp_path, unsealed=unsealed) as copies:
        reported = copies.control_plane.state.cumulative.requests
        assert reported == 12 + unsealed + 8
        wire = copies.restored()
        wire.site.record(5)
        if sealed_before_the_grant:
            wire.site.seal()
        await wire.exchange()
        assert wire.state.frozen
        await granted(wire)
        state = wire.state
        assert (state.frozen, state.alarm) == (False, "")
        wire.site.record(2)
        wire.site.seal()
        await wire.exchange()
        assert wire.unreceipted() == 0
        assert wire.state.epoch == 2
        assert copies.control_plane.state.epoch == 2
        assert copies.control_plane.state.cumulative.requests == reported + 7
        assert wire.state.alarm == ""


async def test_records_that_the_lost_site_never_reported_are_in_the_new_epoch(
    tmp_path: Path,
) -> None:
    """The backup is younger than the last report: what stood in it unreported is not lost."""
    async with two(tmp_path, unsealed=6, after=0) as copies:
        assert copies.control_plane.state.cumulative.requests == 12
        wire = copies.restored()
        await granted(wire)
        wire.site.record(1)
        wire.site.seal()
        await wire.exchange()
        assert copies.control_plane.state.cumulative.requests == 12 + 6 + 1


async def test_the_grant_carries_on_after_a_restart_in_between(tmp_path: Path) -> None:
    async with two(tmp_path) as copies:
        reported = copies.control_plane.state.cumulative.requests
        wire = copies.restored()
        wire.site.record(5)
        start(wire.site)  # restarted before anybody was asked
        wire.site.record(2)
        await wire.exchange()
        await granted(wire)
        wire.site.seal()
        await wire.exchange()
        assert copies.control_plane.state.cumulative.requests == reported + 7


async def test_two_live_copies_are_found(tmp_path: Path) -> None:
    async with two(tmp_path, unsealed=0, after=0) as copies:
        twin = copies.restored(later_s=1)
        for wire in (copies.wire, twin):
            wire.site.record(4)
            wire.site.seal()
        await copies.wire.exchange()
        assert copies.wire.state.accepted_through == 4
        await twin.exchange()
        assert twin.state.frozen
        assert twin.state.alarm == "other_head"
        assert copies.control_plane.state.frozen
        # The other one hears of it with its next exchange, whatever it has to send.
        copies.wire.site.record(1)
        copies.wire.site.seal()
        await copies.wire.exchange()
        assert copies.wire.state.frozen
        assert "two copies" in copies.wire.state.frozen_reason


async def test_a_grant_for_another_key_is_refused_and_nothing_changed(tmp_path: Path) -> None:
    async with two(tmp_path) as copies:
        wire = copies.restored()
        stranger = prepare_key(copies.wire.site.home.secrets, SeededEntropy(5)).public
        copies.control_plane.grant(stranger)
        done = await wire.exchange()
        refused = next(one for one in done.outcomes if one.kind == "epoch-grant")
        assert refused.outcome == "refused"
        assert "does not hold" in refused.message
        with wire.site.reading() as connection:
            assert archive.chain_state(connection).epoch == 1


async def test_a_grant_is_taken_once(tmp_path: Path) -> None:
    async with two(tmp_path) as copies:
        wire = copies.restored()
        await granted(wire)
        with wire.site.reading() as connection:
            before = archive.chain_state(connection)
        done = await wire.exchange()
        assert {one.outcome for one in done.outcomes} <= {"unchanged", "superseded"}
        with wire.site.reading() as connection:
            assert archive.chain_state(connection) == before
