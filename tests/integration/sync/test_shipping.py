"""A site's manifests over the wire to a control plane that verifies them, and what comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from appliance.settings import Sync
from appliance.sync.errors import ControlPlaneAway, ControlPlaneRefused, NotEnrolled, SyncOffline
from tests.fakes.control_plane import refusal, served
from tests.fakes.sealed_site import sealed_site
from tests.fakes.shipping import Wire, vendor_of


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    site = sealed_site(tmp_path, manifests=5)
    async with served(vendor_of(site)) as control_plane:
        wire = Wire(site, control_plane)
        wire.enrolled()
        yield wire


async def test_everything_is_sent_and_receipted_once(wire: Wire) -> None:
    done = await wire.exchange()
    assert done.sent == 5
    assert wire.unreceipted() == 0
    assert wire.state.accepted_through == 5
    again = await wire.exchange()
    assert again.sent == 0
    assert wire.control_plane.requests == ["receipts", "manifests", "receipts"]
    assert wire.control_plane.accepted == [(1, seq) for seq in range(1, 6)]


async def test_many_manifests_go_in_bundles_that_fit(wire: Wire) -> None:
    wire.batch_bytes_max = 40_000
    done = await wire.exchange()
    assert done.sent == 5
    assert wire.control_plane.requests.count("manifests") > 1
    assert wire.unreceipted() == 0


async def test_an_answer_that_is_lost_repeats_the_bundle_and_nothing_is_doubled(
    wire: Wire,
) -> None:
    wire.control_plane.cut_after = 1
    with pytest.raises(ControlPlaneAway):
        await wire.exchange()
    assert wire.control_plane.state.accepted_through == 5
    assert wire.state.accepted_through == 0
    done = await wire.exchange()  # the pull alone brings the receipt
    assert done.sent == 0
    assert wire.unreceipted() == 0
    assert wire.control_plane.accepted == [(1, seq) for seq in range(1, 6)]


async def test_a_control_plane_that_forgot_is_sent_what_it_lacks(wire: Wire) -> None:
    await wire.exchange()
    fresh = vendor_of(wire.site)
    fresh.vendor._number = 100
    fresh.now_ns = wire.control_plane.now_ns + 3_600 * 1_000_000_000
    fresh.receipt()  # it says: nothing was accepted
    async with served(fresh):
        wire.enrolled(control_plane_url=fresh.base_url)
        done = await wire.exchange()
    assert fresh.state.accepted_through == 5
    assert done.sent == 5
    assert wire.unreceipted() == 0
    assert wire.state.alarm == ""


@pytest.mark.parametrize("status", [302, 400, 403, 429, 500, 503])
async def test_a_refusal_is_told_with_its_words_and_nothing_is_lost(
    wire: Wire, status: int
) -> None:
    wire.control_plane.answers = [refusal(status, "some_code", "Not now.")]
    with pytest.raises(ControlPlaneRefused) as caught:
        await wire.exchange()
    assert str(status) in caught.value.message
    assert "Not now." in caught.value.message
    assert caught.value.wire_code == "some_code"
    assert wire.unreceipted() == 5
    assert (await wire.exchange()).sent == 5


@pytest.mark.parametrize(
    "answer",
    [
        {"body": b"", "content_type": "application/vnd.crosslogic.receipt-bundle"},
        {"body": b"x" * 4_096, "content_type": "application/vnd.crosslogic.receipt-bundle"},
        {"body": b"<html>", "content_type": "text/html"},
    ],
)
async def test_an_answer_that_is_no_receipt_is_refused(wire: Wire, answer: dict[str, Any]) -> None:
    wire.control_plane.answers = [web.Response(**answer)]
    with pytest.raises(Exception) as caught:  # noqa: PT011 (its code is looked at)
        await wire.exchange()
    assert getattr(caught.value, "code", None) in {"bad_bundle", "document_refused"}
    assert wire.unreceipted() == 5


async def test_nobody_there(wire: Wire) -> None:
    wire.enrolled(control_plane_url="http://127.0.0.1:9")
    with pytest.raises(ControlPlaneAway, match=r"127\.0\.0\.1"):
        await wire.exchange()


async def test_somebody_who_never_answers_is_left_in_time(wire: Wire) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wire.enrolled(control_plane_url=f"http://127.0.0.1:{port}")
    wire.settings = Sync(connect_s=0.2, request_s=0.3)
    with pytest.raises(ControlPlaneAway, match="in time"):
        await wire.exchange()
    server.close()


async def test_a_site_that_is_not_enrolled_or_offline_asks_nobody(wire: Wire) -> None:
    wire.enrolled(control_plane_key_pem="")
    with pytest.raises(NotEnrolled, match="cic sync enrol"):
        await wire.exchange()
    wire.enrolled()
    wire.settings = Sync(mode="offline")
    with pytest.raises(SyncOffline, match="offline"):
        await wire.exchange()
    assert wire.control_plane.requests == []
