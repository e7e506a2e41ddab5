"""`cic sync` and `cic entitlement` against a served admin API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.security.signing import SigningKey
from appliance.sync.errors import EntitlementRefused, NotEnrolled
from appliance.wire.sync import DocumentOutcome, Exceeded
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.clock import START_NS
from tests.fakes.command_line import Done, cic
from tests.fakes.sync_port import ENTITLEMENT, STATUS
from tests.fakes.vendor import Vendor

VENDOR = Vendor("apl_1", "00" * 32)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path / "home") as site:
        yield site


def run(site: AdminSite, *arguments: object) -> Done:
    return cic("--home", site.home.config, *arguments)


def test_now_succeeds_only_when_everything_fitted(site: AdminSite) -> None:
    done = run(site, "sync", "now")
    assert (done.code, done.err) == (0, "")
    assert "Sent 2 manifests." in done.out
    assert "2 manifests, the oldest 6 min old" in done.out
    site.sync.documents = [
        DocumentOutcome(
            kind="receipt",
            document_id="rcp_7",
            outcome="refused",
            message="It is another's.",
            next_step="Bring this site's.",
        )
    ]
    done = run(site, "sync", "now")
    assert done.code == 1
    assert "refused: receipt rcp_7 It is another's. Bring this site's." in done.out
    assert run(site, "--json", "sync", "now").json["ok"] is False


def test_now_says_what_to_do_where_there_is_no_control_plane(site: AdminSite) -> None:
    site.sync.error = NotEnrolled("This site is not enrolled.", next_step="Run `cic sync enrol`.")
    done = run(site, "--json", "sync", "now")
    assert done.code == 4
    assert done.error["code"] == "not_enrolled"
    assert "cic sync enrol" in done.error["next_step"]


def test_status_shows_trouble_and_leaves_out_what_is_not(site: AdminSite) -> None:
    assert "alarm" not in run(site, "sync", "status").out
    site.sync.now = msgspec.structs.replace(
        STATUS,
        state="frozen",
        alarm="other_head",
        alarm_detail="Another copy is at work.",
        frozen_reason="Two copies.",
        next_step="Ask for a grant.",
        last_error="It did not answer.",
    )
    shown = run(site, "sync", "status").out
    for text in (
        "frozen",
        "other_head: Another copy",
        "Two copies.",
        "Ask for a grant.",
        "did not",
    ):
        assert text in shown
    assert run(site, "--json", "sync", "status").json["state"] == "frozen"


def test_enrol_shows_the_key_to_compare(site: AdminSite) -> None:
    done = run(site, "sync", "enrol", "https://c.example", "clxe_a.geheim.b")
    assert done.code == 0
    assert STATUS.control_plane_key_id in done.out
    assert "geheim" not in done.out + done.err
    assert site.sync.asked == [("enrol", "https://c.example", "clxe_a.geheim.b")]


def test_a_request_is_written_once_and_never_over_another_file(
    site: AdminSite, tmp_path: Path
) -> None:
    out = tmp_path / "request.json"
    done = run(site, "sync", "request", "--out", out, "--new-key")
    assert done.code == 0
    assert json.loads(out.read_text()) == {"payload": ""}
    assert site.sync.asked == [("request", True)]
    again = run(site, "--json", "sync", "request", "--out", out)
    assert again.code == 4
    nowhere = run(site, "--json", "sync", "request", "--out", tmp_path / "no" / "file")
    assert nowhere.code == 7


def written(folder: Path, raw: bytes) -> Path:
    file = folder / "entitlement.json"
    file.write_bytes(raw + b"\n")
    return file


def test_install_sends_the_file_and_the_key_that_is_to_be_pinned(
    site: AdminSite, tmp_path: Path
) -> None:
    raw = VENDOR.sign(VENDOR.entitlement(START_NS))
    key = tmp_path / "control-plane.pem"
    key.write_text(VENDOR.key.public.pem)
    done = run(site, "entitlement", "install", written(tmp_path, raw), "--control-plane-key", key)
    assert done.code == 0
    assert VENDOR.key.public.key_id in done.out  # the fingerprint, to be compared
    assert "8 days to the end of the lease" in done.out
    assert site.sync.asked == [("install", raw, VENDOR.key.public.pem)]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 600, b"{", b"{}" * 40_000])
def test_a_file_that_is_no_document_is_refused(
    site: AdminSite, tmp_path: Path, content: bytes
) -> None:
    site.sync.error = EntitlementRefused("That is none.", next_step="Bring another.")
    done = run(site, "--json", "entitlement", "install", written(tmp_path, content))
    assert done.code != 0
    assert done.error["message"]
    assert done.error["next_step"]


def test_a_file_that_is_no_key_is_refused(site: AdminSite, tmp_path: Path) -> None:
    raw = VENDOR.sign(VENDOR.entitlement(START_NS))
    key = tmp_path / "key.pem"
    key.write_bytes(SigningKey(b"k" * 32).public.raw)
    file = written(tmp_path, raw)
    done = run(site, "--json", "entitlement", "install", file, "--control-plane-key", key)
    assert done.error["code"] == "bad_public_key"
    assert site.sync.asked == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "8 days to the end of the lease"),
        ({"stage": "grace", "days_left": 1}, "1 day to the freezing of management changes"),
        ({"stage": "frozen", "days_left": None, "message": "Frozen."}, "Frozen."),
        ({"stage": "frozen", "days_left": 5}, "5 days to the throttle"),
        (
            {"exceeded": [Exceeded(what="gpus", message="8 GPUs.", next_step="Forget a node.")]},
            "8 GPUs. Forget a node.",
        ),
    ],
)
def test_show_counts_down_and_tells_what_goes_beyond(
    site: AdminSite, changes: dict[str, Any], expected: str
) -> None:
    site.sync.lease = msgspec.structs.replace(ENTITLEMENT, **changes)
    assert expected in run(site, "entitlement", "show").out
    assert expected in run(site, "status").out


def test_a_site_without_an_entitlement_says_so_in_a_word(site: AdminSite) -> None:
    site.sync.lease = msgspec.structs.replace(
        ENTITLEMENT, stage="none", entitlement_id="", message="", days_left=None
    )
    assert run(site, "entitlement", "show").out.split() == ["stage", "none"]
