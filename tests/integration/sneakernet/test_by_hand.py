"""The wire is cut: a running site, a control plane of its own, and a stick between them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine import engine_in_thread
from tests.fakes.site import Key, Site, running_site

pytestmark = pytest.mark.timeout(180)


class Vendor:
    """The control plane as its operator types it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cic("init")

    def run(self, *arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "appliance.cli", "control-plane"),
                *("--home", str(self.home), "--json", *map(str, arguments)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={name: text for name, text in os.environ.items() if not name.startswith("CIC")},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def cic(self, *arguments: object, code: int = 0) -> Any:
        printed = self.run(*arguments, code=code)
        return json.loads(printed) if printed.strip() else None


class Desk:
    """A site that may not leave, its vendor, and a stick."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.stick = folder / "stick"
        self.stick.mkdir()
        self.vendor = Vendor(folder / "vendor")
        self.key: Key = site.key()

    def ask(self, count: int) -> None:
        body = {"model": "fault", "messages": [{"role": "user", "content": "hello"}]}
        for _ in range(count):
            assert self.site.post("/chat/completions", body, self.key)[0] == 200

    def export(self, *options: str) -> list[Path]:
        told = self.site.cic("bundle", "export", "--to", str(self.stick), *options)
        assert told["safe_to_unplug"] is True
        return [Path(file["path"]) for file in told["files"]]

    def receipt(self) -> Path:
        (written,) = self.vendor.cic("export", "--to", self.stick)
        return Path(written["file"])

    def bring(self, path: Path, *options: str, check: bool = True) -> Any:
        done = self.site.run("--json", "bundle", "import", str(path), *options, check=check)
        return json.loads(done.stdout)

    def standing(self) -> Any:
        """How the site stands with its vendor, without what time alone changes."""
        told = self.site.cic("sync", "status")
        del told["lag_age_s"]
        return told

    def introduce(self) -> None:
        """By hand: the site's request there, the vendor's key and licence back."""
        request, pem = self.stick / "site.request", self.stick / "vendor.pem"
        self.site.run("sync", "request", "--out", str(request))
        self.vendor.run("enroll", "north", "--request", request)
        pem.write_text(self.vendor.cic("key")["pem"])
        self.bring(self.receipt(), "--control-plane-key", str(pem))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    settings = {"CIC_SYNC_MODE": "offline", "CIC_SITE_NAME": "North"}
    with engine_in_thread() as engine, running_site(settings=settings) as site:
        site.deployment("fault", engine.url)
        yield Desk(site, tmp_path)


def test_every_token_gets_there_and_the_answer_comes_back(desk: Desk) -> None:
    desk.introduce()
    desk.ask(5)
    (bundle,) = desk.export()  # seals what is open first
    assert bundle.name.startswith("north-1-")
    pem = desk.stick / "site.pem"
    pem.write_text(desk.site.run("manifest", "public-key").stdout)
    verdict = desk.site.cic("verify", str(bundle), "--key", str(pem))
    assert (verdict["ok"], verdict["kind"]) == (True, "usage bundle")
    records = desk.site.ledger()
    assert verdict["facts"]["requests"] == len(records)
    assert verdict["facts"]["output_tokens"] == sum(row["output_tokens"] for row in records)

    taken = desk.vendor.cic("import", bundle)
    assert taken["ok"]
    report = desk.bring(desk.receipt())
    assert report["ok"]
    assert report["status"]["lag_manifests"] == 0
    assert desk.export() == []  # a receipt covers everything

    # Whatever is repeated, in whatever order, changes nothing.
    desk.ask(2)
    (second,) = desk.export()
    again = desk.site.run("--json", "bundle", "export", "--to", str(desk.stick), "--all")
    (whole,) = [Path(file["path"]) for file in json.loads(again.stdout)["files"]]
    assert desk.vendor.cic("import", bundle)["codes"] == {"ALREADY_ACCEPTED": taken["manifests"]}
    assert desk.vendor.cic("import", whole)["ok"]
    assert desk.vendor.cic("import", second)["ok"]
    newest = desk.receipt()
    desk.bring(newest)
    state = desk.standing()
    desk.bring(newest)
    assert desk.standing() == state
    assert desk.export() == []


def test_a_stopped_site_exports_and_imports_as_well(desk: Desk) -> None:
    desk.introduce()
    desk.ask(3)
    desk.site.cic("manifest", "seal")
    desk.site.stop()
    (bundle,) = desk.export()
    desk.vendor.cic("import", bundle)
    report = desk.bring(desk.receipt())
    assert report["ok"]
    assert report["status"]["lag_manifests"] == 0
    desk.site.start()
    assert desk.site.cic("sync", "status")["lag_manifests"] == 0


def test_what_is_not_right_changes_nothing_on_either_side(desk: Desk) -> None:
    desk.introduce()
    desk.ask(3)
    (bundle,) = desk.export()
    raw = bundle.read_bytes()
    bad = desk.stick / "bad.usage"
    for content in (raw[: len(raw) // 2], raw[:-1], raw + b"\0", raw[:900] + b"\1" + raw[901:]):
        bad.write_bytes(content)
        done = desk.vendor.cic("import", bad, code=6)
        assert done["error"]["code"] == "bad_bundle"
    assert desk.vendor.cic("import", bundle)["ok"]
    receipt = desk.receipt()
    raw = receipt.read_bytes()
    before = desk.standing()
    for content in (raw[: len(raw) // 2], raw[:2_000] + b"\1" + raw[2_001:], bundle.read_bytes()):
        bad.write_bytes(content)
        assert desk.bring(bad, check=False)["error"]["message"]
    # A receipt of another control plane that calls itself ours.
    stranger = Vendor(desk.stick.with_name("stranger"))
    stranger.run("enroll", "north", "--request", desk.stick / "site.request")
    (written,) = stranger.cic("export", "--to", desk.stick)
    refused = desk.bring(Path(written["file"]), check=False)
    assert refused["error"]["code"] == "unknown_signing_key"
    assert desk.standing() == before
