"""A served site seals what it served: every record in exactly one manifest, whatever happens."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.manifests.proof import verify_proof
from appliance.security.signing import PublicKey
from tests.fakes.engine import engine_in_thread
from tests.fakes.site import Key, Site, running_site

MODEL = "small"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("sealing")
    with (
        engine_in_thread() as engine,
        running_site(folder, settings={"CIC_SYNC_MODE": "offline"}) as running,
    ):
        running.deployment(MODEL, engine.url)
        yield running


def chat(site: Site, key: Key) -> str:
    """One request; its id."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    status, headers, content = site.post("/chat/completions", body, key)
    assert status == 200, content
    return headers["x-request-id"]


def look(site: Site, path: str, key: Key) -> tuple[int, dict[str, str], Any]:
    status, headers, content = site.call("GET", path, None, key)
    return status, headers, json.loads(content)


def sealed_ranges(site: Site) -> list[tuple[int, int]]:
    return [(row["record_seq_lo"], row["record_seq_hi"]) for row in site.cic("manifest", "list")]


def assert_each_record_once(site: Site) -> None:
    """The runs of numbers follow one another, and end with the ledger."""
    covered = [number for lo, hi in sealed_ranges(site) for number in range(lo, hi + 1)]
    assert covered == [row["seq"] for row in site.ledger()]


def test_a_seal_on_demand_takes_what_is_new_and_then_nothing(site: Site) -> None:
    key = site.key()
    site.cic("manifest", "seal")
    ids = [chat(site, key) for _ in range(3)]
    made = site.cic("manifest", "seal")
    assert (made["sealed"], made["records"], made["totals"]["requests"]) == (1, 3, 3)
    rows = [row for row in site.ledger() if row["request_id"] in ids]
    assert made["totals"]["output_tokens"] == sum(row["output_tokens"] for row in rows)
    again = site.cic("manifest", "seal")
    assert (again["sealed"], again["records"]) == (0, 0)
    assert (again["seq"], again["sha256"]) == (made["seq"], made["sha256"])
    assert "Nothing is new" in site.run("manifest", "seal").stdout
    assert_each_record_once(site)


def test_the_raw_envelope_is_the_one_that_is_stored(site: Site) -> None:
    chat(site, site.key())
    seq = str(site.cic("manifest", "seal")["seq"])
    printed = site.run("manifest", "show", seq, "--raw").stdout.encode()
    with closing(sqlite3.connect(f"file:{site.home}/ledger.db?mode=ro", uri=True)) as connection:
        (stored,) = connection.execute(
            "SELECT envelope FROM manifests WHERE seq = ?", (seq,)
        ).fetchone()
    assert printed == stored


def test_a_tenants_view_hides_the_lines_of_others(site: Site) -> None:
    ours, theirs = site.key(), site.key()
    chat(site, ours)
    chat(site, theirs)
    seq = str(site.cic("manifest", "seal")["seq"])
    printed = site.run("manifest", "show", seq, "--lines", "--tenant", ours.tenant).stdout
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line.get("tenant", "hidden") for line in lines if "redacted" not in line] == [
        ours.tenant
    ]
    assert any(list(line) == ["redacted"] for line in lines)
    assert theirs.tenant not in printed
    assert theirs.id not in printed


def test_a_key_sees_its_own_usage_and_limits_alone(site: Site) -> None:
    key = site.key(limits={"requests_per_min": 50, "tokens_per_day": 10_000})
    other = site.key()
    chat(site, other)
    status, _, before = look(site, "/usage", key)
    assert status == 200
    assert before["total"]["requests"] == 0
    assert before["models"] == []
    request_id = chat(site, key)
    row = site.record(request_id)
    _, _, after = look(site, "/usage", key)
    for window in ("today", "month", "total"):
        assert after[window]["requests"] == 1
        assert after[window]["total_tokens"] == row["input_tokens"] + row["output_tokens"]
    assert [model["model"] for model in after["models"]] == [MODEL]
    (limits,) = after["limits"]
    assert limits["layer"] == "key"
    assert limits["requests_per_min"]["limit"] == 50
    assert limits["requests_per_min"]["remaining"] == 49
    assert 0 < limits["requests_per_min"]["reset_s"] <= 60
    used = row["input_tokens"] + row["output_tokens"]
    assert limits["tokens_per_day"]["remaining"] == 10_000 - used
    assert other.tenant not in json.dumps(after)
    # Looking makes no record and counts against no limit.
    assert look(site, "/usage", key)[2]["limits"][0]["requests_per_min"]["remaining"] == 49


def test_a_read_only_key_may_look_and_a_wrong_one_may_not(site: Site) -> None:
    assert look(site, "/usage", site.key(role="read-only"))[0] == 200
    assert site.call("GET", "/usage", None, None)[0] == 401
    status, headers, body = site.post("/usage", {}, site.key())
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(body)["error"]["code"] == "method_not_allowed"


def test_a_proof_is_for_its_tenant_and_for_sealed_windows(site: Site) -> None:
    key, other = site.key(), site.key()
    request_id = chat(site, key)
    status, headers, refused = look(site, f"/usage/{request_id}/proof", key)
    assert (status, refused["error"]["code"]) == (409, "not_sealed_yet")
    assert int(headers["retry-after"]) >= 1
    site.cic("manifest", "seal")
    status, _, proof = look(site, f"/usage/{request_id}/proof", key)
    assert status == 200
    pem = site.cic("manifest", "public-key")["pem"]
    verdict = verify_proof(
        json.dumps(proof, separators=(",", ":")).encode(), PublicKey.from_pem(pem)
    )
    assert verdict.record.request_id == request_id
    assert verdict.record.tenant == key.tenant
    # A stranger learns nothing: not even that there is such a request.
    foreign = look(site, f"/usage/{request_id}/proof", other)
    unknown = look(site, "/usage/req_nobody/proof", other)
    assert foreign[0] == unknown[0] == 404
    assert foreign[2] == unknown[2]
    # The record's id serves as well as the request's.
    record_id = site.record(request_id)["record_id"]
    assert look(site, f"/usage/{record_id}/proof", key)[2] == proof


def test_a_proof_from_the_command_line_is_verified_by_it(site: Site, tmp_path: Path) -> None:
    request_id = chat(site, site.key())
    site.cic("manifest", "seal")
    proof, key = tmp_path / "proof.json", tmp_path / "site.pem"
    site.run("usage", "prove", request_id, "--out", str(proof))
    key.write_text(site.run("manifest", "public-key").stdout)
    assert proof.stat().st_size <= 2_048
    assert site.run("verify", str(proof), "--key", str(key)).returncode == 0
    # What was written stays.
    assert site.run("usage", "prove", request_id, "--out", str(proof), check=False).returncode == 4
    assert site.run("usage", "prove", "nobody", check=False).returncode == 3


def test_keys_rotate_and_what_was_signed_before_stays_verifiable(site: Site) -> None:
    chat(site, site.key())
    before = site.cic("manifest", "seal")
    old = site.cic("manifest", "public-key")
    new = site.cic("manifest", "key-rotate")
    assert new["key_id"] != old["key_id"]
    assert new["appliance_id"] == old["appliance_id"]
    # Twice without a manifest between would leave a key that signed nothing.
    refused = site.run("--json", "manifest", "key-rotate", check=False)
    assert refused.returncode == 4
    assert json.loads(refused.stdout)["error"]["code"] == "manifest_key_unused"
    chat(site, site.key())
    after = site.cic("manifest", "seal")
    shown = site.cic("manifest", "show", str(after["seq"]))
    assert shown["header"]["key_id"] == new["key_id"]
    assert site.cic("manifest", "public-key", str(before["seq"]))["key_id"] == old["key_id"]
    assert site.cic("manifest", "verify")["ok"]


def test_a_stopped_site_shows_the_same_and_the_next_start_seals_the_rest(site: Site) -> None:
    key = site.key()
    chat(site, key)
    site.cic("manifest", "seal")
    chat(site, key)
    running = site.cic("manifest", "list"), site.cic("manifest", "public-key")
    site.kill()
    assert (site.cic("manifest", "list"), site.cic("manifest", "public-key")) == running
    last = str(running[0][-1]["seq"])
    assert site.cic("manifest", "show", last)["manifest"] == running[0][-1]
    verdict = site.cic("manifest", "verify")
    assert verdict["ok"]
    assert verdict["unsealed"] == 1
    refused = site.run("--json", "manifest", "seal", check=False)
    assert json.loads(refused.stdout)["error"]["code"] == "not_running"
    site.start()
    site.until(lambda: len(site.cic("manifest", "list")) > len(running[0]), 15, "the rest sealed")
    assert_each_record_once(site)
    assert site.cic("manifest", "verify")["ok"]


def test_status_of_usage_is_still_a_command_of_its_own(site: Site) -> None:
    rows = site.cic("usage", "--by", "model")
    assert [row["model"] for row in rows] == [MODEL]
    assert site.cic("usage")[0]["requests"] == len(site.ledger())
