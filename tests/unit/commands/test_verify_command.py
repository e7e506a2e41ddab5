"""`cic verify`: every kind of signed file, right and wrong, with nothing but a public key."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from appliance.manifests.bundle import CarriedDocument, write_receipts
from appliance.manifests.documents import EpochGrant, KeyRevocation, KeyRotation, Totals
from appliance.manifests.keys import sign_rotation
from appliance.manifests.lines import Salts
from appliance.manifests.proof import make_proof
from appliance.manifests.redaction import redact
from appliance.metering.reader import LedgerReader
from appliance.security.signing import SigningKey
from appliance.sync.enrolment import introduction
from appliance.wire.command import ExitCode
from tests.fakes.command_line import Done, cic
from tests.fakes.sealed_site import SealedSite, sealed_site
from tests.fakes.vendor import Vendor

NEW = SigningKey(b"n" * 32)
AT = "2027-01-15T08:00:00.000Z"


class Desk:
    """A site and its vendor; files of every kind of theirs; a home that knows nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site: SealedSite = sealed_site(folder, manifests=3)
        self.vendor = Vendor(self.site.appliance_id, self.site.identity.key.key_id)
        self.pub = folder / "site.pem"
        self.pub.write_text(self.site.identity.key.public.pem)
        self.vendor_pub = folder / "vendor.pem"
        self.vendor_pub.write_text(self.vendor.key.public.pem)
        self.nobody = folder / "nobody"

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def verify(self, path: Path, *keys: Path) -> Done:
        given = [word for key in keys for word in ("--key", key)]
        return cic("--home", self.nobody, "--json", "verify", path, *given)


def _proof(desk: Desk) -> bytes:
    manifest = desk.site.manifest(2)
    reader = LedgerReader(desk.site.home.ledger_file)
    rows = [
        record
        for page in reader.pages(manifest.row.record_seq_lo - 1, manifest.row.record_seq_hi)
        for record in page
    ]
    salts = Salts(desk.site.identity.salts)
    return make_proof(manifest.envelope, manifest.lines, rows, rows[0].record_id, salts)


def _usage(desk: Desk, *options: str) -> bytes:
    done = cic(
        *("--home", desk.site.home.root, "--json"),
        *("bundle", "export", "--to", desk.folder, "--all", *options),
    )
    return Path(done.json["files"][0]["path"]).read_bytes()


def _receipt(desk: Desk) -> bytes:
    head = desk.site.manifest(2).row.sha256
    return desk.vendor.sign(desk.vendor.receipt(accepted_through=2, head_sha256=head))


def _receipts(desk: Desk) -> bytes:
    documents = [
        CarriedDocument("receipt", _receipt(desk)),
        CarriedDocument("price-book", desk.vendor.sign(desk.vendor.price_book(2))),
        CarriedDocument("key-revocation", _revocation(desk)),
    ]
    return write_receipts(desk.site.appliance_id, documents)


def _revocation(desk: Desk) -> bytes:
    key_id = desk.site.identity.key.key_id
    document = KeyRevocation(
        appliance_id=desk.site.appliance_id, key_id=key_id, epoch=1, seq=4, reason="stolen", at=AT
    )
    return desk.vendor.sign(document)


def _grant(desk: Desk) -> bytes:
    none = Totals(requests="0", input_tokens="0", cached_tokens="0", output_tokens="0")
    document = EpochGrant(
        appliance_id=desk.site.appliance_id,
        epoch=2,
        predecessor_epoch=1,
        predecessor_seq=3,
        predecessor_sha256="ab" * 32,
        predecessor_wall=AT,
        event_seq=12,
        cumulative_totals=none,
        log_size=1,
        log_root="cd" * 32,
        log_frontier=("cd" * 32,),
        key_pem=NEW.public.pem,
        reason="restored",
        at=AT,
    )
    return desk.vendor.sign(document)


def _rotation(desk: Desk) -> bytes:
    old = desk.site.identity.key
    document = KeyRotation(
        appliance_id=desk.site.appliance_id,
        epoch=1,
        seq=4,
        old_key_id=old.key_id,
        new_key_pem=NEW.public.pem,
        at=AT,
    )
    return sign_rotation(document, old, NEW).to_bytes()


def _enrolment(desk: Desk) -> bytes:
    return introduction(
        appliance_id=desk.site.appliance_id,
        name="factory-7",
        epoch=1,
        wall_ns=desk.site.now_ns,
        key=desk.site.identity.key,
    )


def _checkpoint(desk: Desk) -> bytes:
    desk.write("a.usage", _usage(desk))
    command = ["tar", "xOf", str(desk.folder / "a.usage"), "checkpoint"]
    return subprocess.run(command, check=True, capture_output=True, timeout=10).stdout


KINDS: dict[str, Callable[[Desk], bytes]] = {
    "proof": _proof,
    "manifest header": lambda desk: desk.site.manifest(2).envelope,
    "usage bundle": _usage,
    "part of a usage log": lambda desk: _usage(desk, "--from", "2"),
    "receipt bundle": _receipts,
    "receipt": _receipt,
    "entitlement": lambda desk: desk.vendor.sign(desk.vendor.entitlement(desk.site.now_ns)),
    "price book": lambda desk: desk.vendor.sign(desk.vendor.price_book(2)),
    "plans": lambda desk: desk.vendor.sign(desk.vendor.plans(1, ())),
    "key revocation": _revocation,
    "epoch grant": _grant,
    "key rotation": _rotation,
    "enrolment": _enrolment,
    "checkpoint": _checkpoint,
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_known_and_verified(desk: Desk, kind: str) -> None:
    path = desk.write("file", KINDS[kind](desk))
    done = desk.verify(path, desk.pub, desk.vendor_pub)
    assert done.code == 0
    found = done.json
    assert (found["ok"], found["kind"]) == (True, kind)
    assert found["signed_by"][0] in {desk.site.identity.key.key_id, desk.vendor.key.key_id}
    assert found["summary"]
    assert found["proves"]
    assert any("fingerprint" in sentence for sentence in found["does_not_prove"])
    told = cic("--home", desk.nobody, "verify", path, "--key", desk.pub, "--key", desk.vendor_pub)
    assert told.out.startswith(f"VERIFIED: {path} is ")
    for title in ("What this proves:", "What it does not prove:"):
        assert title in told.out


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_verifies_with_a_strangers_key(desk: Desk, kind: str) -> None:
    stranger = desk.write("stranger.pem", SigningKey(b"x" * 32).public.pem.encode())
    done = desk.verify(desk.write("file", KINDS[kind](desk)), stranger)
    assert (done.code, done.json["ok"]) == (ExitCode.DAMAGED, False)
    assert done.json["error"]["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_verifies_with_a_bit_changed(desk: Desk, kind: str) -> None:
    """One bit in each 97th byte; single documents are turned bit by bit elsewhere."""
    raw = bytearray(KINDS[kind](desk))
    path = desk.write("file", bytes(raw))
    for place in range(0, len(raw), max(97, len(raw) // 25)):
        raw[place] ^= 1 << place % 7
        path.write_bytes(raw)
        raw[place] ^= 1 << place % 7
        done = desk.verify(path, desk.pub, desk.vendor_pub)
        assert (done.code, done.json["ok"]) == (ExitCode.DAMAGED, False), place
        assert done.json["error"]["code"]


def test_a_manifest_with_its_lines(desk: Desk) -> None:
    manifest = desk.site.manifest(2)
    path = desk.write("1-2.dsse.json", manifest.envelope)
    assert desk.verify(path, desk.pub).json["kind"] == "manifest header"
    beside = desk.write("1-2.ndjson", manifest.lines)  # as in an unpacked bundle
    assert desk.verify(path, desk.pub).json["kind"] == "manifest"
    named = cic("--json", "verify", path, "--key", desk.pub, "--lines", beside).json
    assert named["kind"] == "manifest"
    beside.write_bytes(redact(manifest.lines, {"ten_1"}))
    shown = desk.verify(path, desk.pub).json
    assert shown["kind"] == "redacted manifest"
    assert (shown["facts"]["lines_shown"], shown["facts"]["lines_hidden"]) == (1, 1)
    beside.write_bytes(manifest.lines.replace(b"acme", b"acma"))
    done = desk.verify(path, desk.pub)
    assert (done.code, done.json["error"]["code"]) == (ExitCode.DAMAGED, "bad_manifest")
    assert "LINES_ROOT_MISMATCH" in done.json["error"]["message"]
    missing = cic("--json", "verify", path, "--key", desk.pub, "--lines", desk.folder / "missing")
    assert (missing.code, missing.error["code"]) == (ExitCode.CONFIGURATION, "bundle_unreadable")


def test_a_proof_can_be_followed_with_other_tools(desk: Desk) -> None:
    """RFC 6962 anew, with the standard library alone, from what is printed."""
    shown = desk.verify(desk.write("file", _proof(desk)), desk.pub).json["evidence"]

    def root(leaf: bytes, index: int, count: int, path: list[str]) -> str:
        digest, last, rest = sha256(b"\0" + leaf).digest(), count - 1, iter(path)
        while last:
            if index % 2 or index < last:
                sibling = bytes.fromhex(next(rest))
                pair = sibling + digest if index % 2 else digest + sibling
                digest = sha256(b"\1" + pair).digest()
            index, last = index // 2, last // 2
        assert list(rest) == []
        return digest.hex()

    record = bytes.fromhex(shown["record_salt"]) + shown["record"].encode()
    line, header = json.loads(shown["line"]), json.loads(shown["header"])
    places = (shown["record_index"], shown["record_count"], shown["record_path"])
    assert root(record, *places) == line["records_root"]
    places = (shown["line_index"], shown["line_count"], shown["line_path"])
    assert root(shown["line"].encode(), *places) == header["lines_root"]
    kind = "application/vnd.crosslogic.usage-manifest.v1+json"
    signed = f"DSSEv1 {len(kind)} {kind} {len(shown['header'])} {shown['header']}".encode()
    key = load_pem_public_key(desk.pub.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(bytes.fromhex(shown["signature"]), signed)


def test_a_home_verifies_with_the_keys_that_it_knows(desk: Desk) -> None:
    path = desk.write("file", _usage(desk))
    assert cic("--home", desk.site.home.root, "--json", "verify", path).json["ok"] is True
    receipt = desk.write("receipt", _receipt(desk))
    done = cic("--home", desk.site.home.root, "--json", "verify", receipt)
    assert done.json["error"]["code"] == "unknown_signing_key"  # nothing is pinned yet


def test_without_any_key_only_the_inside_can_be_looked_at(desk: Desk) -> None:
    path = desk.write("file", _usage(desk))
    done = desk.verify(path)
    assert (done.code, done.json["ok"], done.json["consistent"]) == (ExitCode.USAGE, False, True)
    assert done.json["error"]["code"] == "no_key"
    assert "proves" not in done.json
    told = cic("--home", desk.nobody, "verify", path)
    assert told.out.startswith("NOT VERIFIED")
    assert "anybody could have made" in told.out
    for kind in ("receipt", "manifest header", "proof"):
        alone = desk.verify(desk.write("file", KINDS[kind](desk)))
        assert (alone.code, alone.error["code"]) == (ExitCode.USAGE, "no_key")


def test_a_receipt_bundle_with_a_document_of_another_site(desk: Desk) -> None:
    other = desk.vendor.sign(desk.vendor.receipt(appliance_id="apl_" + "0" * 24))
    raw = write_receipts(desk.site.appliance_id, [CarriedDocument("receipt", other)])
    done = desk.verify(desk.write("file", raw), desk.vendor_pub)
    assert (done.code, done.json["error"]["code"]) == (ExitCode.DAMAGED, "bad_document")
    misfiled = write_receipts(
        desk.site.appliance_id, [CarriedDocument("entitlement", _receipt(desk))]
    )
    done = desk.verify(desk.write("file", misfiled), desk.vendor_pub)
    assert "filed as entitlement" in done.json["error"]["message"]


def test_what_cannot_be_read_is_no_defect(desk: Desk) -> None:
    path = desk.write("file", _receipt(desk))
    for done, code in (
        (desk.verify(desk.folder / "missing", desk.pub), "bundle_unreadable"),
        (desk.verify(path, desk.folder / "missing"), "bundle_unreadable"),
        (desk.verify(path, path), "bad_public_key"),
        (desk.verify(desk.folder, desk.pub), "bundle_unreadable"),
    ):
        assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, code)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", b"{}", b"[]", b"{" * 100_000])
def test_what_is_nothing_of_ours_is_refused(desk: Desk, content: bytes) -> None:
    done = desk.verify(desk.write("file", content), desk.pub)
    assert (done.code, done.json["ok"]) == (ExitCode.DAMAGED, False)


def test_a_single_document_takes_less_than_100_ms(desk: Desk) -> None:
    """The work itself, in this process: start and libraries are measured below."""
    for kind in ("proof", "manifest header", "receipt"):
        path = desk.write("file", KINDS[kind](desk))
        desk.verify(path, desk.pub, desk.vendor_pub)
        begun_s = time.process_time()
        assert desk.verify(path, desk.pub, desk.vendor_pub).code == 0
        assert time.process_time() - begun_s < 0.1


def test_verifying_loads_no_more_than_it_needs(desk: Desk) -> None:
    path = desk.write("file", _receipt(desk))
    program = (
        "import sys; from appliance.cli import main;"
        f" code = main(['verify', {str(path)!r}, '--key', {str(desk.vendor_pub)!r}]);"
        " heavy = {'aiohttp', 'httpx', 'sqlite_utils', 'sqlalchemy', 'stripe', 'asyncio', 'redis'};"
        " print(sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
