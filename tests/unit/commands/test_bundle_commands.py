"""`cic bundle` for a site that does not run: what people and programs are told, and what stays."""

from pathlib import Path

import msgspec
import pytest

from appliance import lock
from appliance.manifests import archive
from appliance.manifests.archive import SyncState
from appliance.manifests.bundle import CarriedDocument, UsageReader, write_receipts
from appliance.storage.database import connect
from appliance.wire.command import ExitCode
from tests.fakes.command_line import Done, cic
from tests.fakes.sealed_site import SealedSite, sealed_site
from tests.fakes.vendor import Vendor


class Desk:
    """A stopped site with four manifests, its vendor, and a stick."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site: SealedSite = sealed_site(folder, manifests=4)
        self.vendor = Vendor(self.site.appliance_id, self.site.identity.key.key_id)
        self.stick = folder / "stick"
        self.stick.mkdir()

    def pin(self) -> None:
        with self.site.writing() as connection:
            state = archive.sync_state(connection)
            pem = self.vendor.key.public.pem
            archive.set_sync_state(
                connection, msgspec.structs.replace(state, control_plane_key_pem=pem)
            )

    def receipt(self, through: int, **changes: object) -> bytes:
        head = self.site.manifest(through).row.sha256
        document = self.vendor.receipt(accepted_through=through, head_sha256=head, **changes)
        return self.vendor.sign(document)

    def bundle(self, *envelopes: bytes, appliance_id: str = "", name: str = "a.receipt") -> Path:
        path = self.stick / name
        documents = [CarriedDocument("receipt", one) for one in envelopes]
        path.write_bytes(write_receipts(appliance_id or self.site.appliance_id, documents))
        return path

    def cic(self, *arguments: object) -> Done:
        return cic("--home", self.site.home.root, *arguments)

    @property
    def state(self) -> SyncState:
        with self.site.reading() as connection:
            return archive.sync_state(connection)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# -- Export


def test_export_says_last_that_it_is_safe(desk: Desk) -> None:
    done = desk.cic("bundle", "export", "--to", desk.stick)
    assert done.code == 0
    assert done.out.splitlines()[-1] == "Safe to unplug."
    assert "Read again and verified" in done.out
    assert "does not run" in done.err
    assert "on the disk of the site itself" in done.err
    assert [path.name for path in desk.stick.iterdir()] == ["factory-7-1-4.usage"]


def test_export_tells_programs(desk: Desk) -> None:
    done = desk.cic("--json", "bundle", "export", "--to", desk.stick)
    (file,) = done.json["files"]
    assert done.json["safe_to_unplug"] is True
    assert (done.json["manifests"], done.json["sealed"], done.json["same_disk"]) == (4, False, True)
    assert Path(file["path"]).stat().st_size == file["size_bytes"]
    assert (file["epoch_from"], file["seq_from"], file["epoch_to"], file["seq_to"]) == (1, 1, 1, 4)
    assert done.err == ""


def test_only_what_no_receipt_covers_is_carried(desk: Desk) -> None:
    desk.pin()
    assert desk.cic("bundle", "import", desk.bundle(desk.receipt(3))).code == 0
    assert desk.cic("--json", "bundle", "export", "--to", desk.stick).json["manifests"] == 1
    assert (desk.stick / "factory-7-4-4.usage").exists()
    desk.cic("bundle", "import", desk.bundle(desk.receipt(4)))
    nothing = desk.cic("--json", "bundle", "export", "--to", desk.stick).json
    assert (nothing["files"], nothing["safe_to_unplug"]) == ([], True)
    assert "Nothing to carry" in desk.cic("bundle", "export", "--to", desk.stick).err
    everything = desk.cic("--json", "bundle", "export", "--to", desk.stick, "--all").json
    assert everything["manifests"] == 4
    # Other manifests changed nothing: a range is what it was.
    part = desk.cic(
        "--json", "bundle", "export", "--to", desk.stick, "--from", "1.2", "--through", 3
    )
    assert [file["seq_from"] for file in part.json["files"]] == [2]
    with (desk.stick / "factory-7-2-3.usage").open("rb") as file:
        assert [one.seq for one in UsageReader(file)] == [2, 3]


def test_export_into_no_folder(desk: Desk) -> None:
    done = desk.cic("--json", "bundle", "export", "--to", desk.stick / "missing")
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "carrier_unusable")
    assert desk.cic("bundle", "export").code == ExitCode.USAGE
    assert desk.cic("bundle", "export", "--to", desk.stick, "--from", "x").code == ExitCode.USAGE


def test_export_over_another_bundle(desk: Desk) -> None:
    (desk.stick / "factory-7-1-4.usage").write_text("precious")
    done = desk.cic("--json", "bundle", "export", "--to", desk.stick)
    assert (done.code, done.error["code"]) == (ExitCode.CONFLICT, "bundle_exists")
    assert (desk.stick / "factory-7-1-4.usage").read_text() == "precious"


def test_export_of_a_damaged_archive_is_not_safe(desk: Desk) -> None:
    with desk.site.writing() as connection:
        envelope = bytearray(archive.manifest(connection, 2).envelope)
        place = envelope.index(b'"sig":"') + 20
        envelope[place] = ord("A") if envelope[place] != ord("A") else ord("B")
        connection.execute("UPDATE manifests SET envelope = ? WHERE seq = 2", (bytes(envelope),))
    done = desk.cic("--json", "bundle", "export", "--to", desk.stick)
    assert (done.code, done.error["code"]) == (ExitCode.DAMAGED, "bad_manifest")
    assert "Manifest 1-2 is not right: SIG_INVALID" in done.error["message"]


def test_a_home_without_a_site(tmp_path: Path) -> None:
    done = cic("--home", tmp_path, "--json", "bundle", "export", "--to", tmp_path)
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "unknown_home")


def test_a_site_of_before_manifests_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    for command in (("export", "--to", tmp_path), ("import", tmp_path / "book.json")):
        (tmp_path / "book.json").write_text("{}")
        done = cic("--home", tmp_path, "--json", "bundle", *command)
        assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "no_manifests")
        assert "init" in done.error["next_step"]
        if command[0] == "export":
            connect(tmp_path / "ledger.db").close()  # a ledger, without their tables


# -- Import


def test_a_receipt_is_taken_once(desk: Desk) -> None:
    desk.pin()
    path = desk.bundle(desk.receipt(2), desk.receipt(3))
    done = desk.cic("bundle", "import", path)
    assert done.code == 0
    assert "Accepted through manifest 1-3; 1 not receipted yet." in done.out
    assert desk.state.accepted_through == 3
    again = desk.cic("--json", "bundle", "import", path)
    assert (again.code, again.json["ok"], again.json["documents"]) == (0, True, [])
    assert desk.state.accepted_through == 3


def test_an_old_receipt_changes_nothing(desk: Desk) -> None:
    desk.pin()
    old = desk.receipt(2, received_at="2027-01-14T08:00:00.000Z")
    assert desk.cic("bundle", "import", desk.bundle(desk.receipt(3))).code == 0
    before = desk.state
    done = desk.cic("bundle", "import", desk.bundle(old, name="old.receipt"))
    assert done.code == ExitCode.CONFLICT
    assert "newer receipt was taken before; nothing was changed" in done.out
    assert desk.state == before


def test_the_first_file_may_bring_the_key(desk: Desk) -> None:
    path = desk.bundle(desk.receipt(3))
    refused = desk.cic("--json", "bundle", "import", path)
    assert refused.error["code"] == "control_plane_not_pinned"
    assert desk.state.accepted_through == 0
    pem = desk.folder / "vendor.pem"
    pem.write_text(desk.vendor.key.public.pem)
    assert desk.cic("bundle", "import", path, "--control-plane-key", pem).code == 0
    assert desk.state.control_plane_key_pem == desk.vendor.key.public.pem
    other = Vendor(desk.site.appliance_id, "", seed=b"x" * 32)
    pem.write_text(other.key.public.pem)
    again = desk.cic("--json", "bundle", "import", path, "--control-plane-key", pem)
    assert again.error["code"] == "entitlement_refused"
    assert desk.state.control_plane_key_pem == desk.vendor.key.public.pem


def test_a_single_document_is_taken(desk: Desk) -> None:
    desk.pin()
    path = desk.stick / "book.json"
    path.write_bytes(desk.vendor.sign(desk.vendor.price_book(4)) + b"\n")
    done = desk.cic("--json", "bundle", "import", path)
    assert done.code == 0
    assert done.json["status"]["price_book_version"] == 4
    entitlement = desk.vendor.entitlement(desk.site.now_ns)
    path.write_bytes(desk.vendor.sign(entitlement))
    done = desk.cic("--json", "bundle", "import", path)
    assert [one["outcome"] for one in done.json["documents"]] == ["applied"]


def _books(desk: Desk) -> list[tuple[object, ...]]:
    """Everything of ledger.db that an import may change."""
    with desk.site.reading() as connection:
        return [
            *connection.execute("SELECT body FROM sync_state"),
            *connection.execute("SELECT kind, document_id FROM documents ORDER BY 1, 2"),
        ]


def _wrong_appliance(desk: Desk) -> bytes:
    return desk.bundle(desk.receipt(3), appliance_id="apl_" + "0" * 24).read_bytes()


def _document_of_another(desk: Desk) -> bytes:
    other = desk.vendor.receipt(appliance_id="apl_" + "0" * 24)
    return desk.bundle(desk.receipt(3), desk.vendor.sign(other)).read_bytes()


def _forged(desk: Desk) -> bytes:
    stranger = Vendor(desk.site.appliance_id, "", seed=b"x" * 32)
    receipt = stranger.receipt(accepted_through=4)
    return desk.bundle(desk.receipt(3), stranger.sign(receipt)).read_bytes()


def _changed(desk: Desk) -> bytes:
    envelope = bytearray(desk.receipt(3))
    envelope[30] ^= 1
    return desk.bundle(desk.receipt(2), bytes(envelope)).read_bytes()


def _truncated(desk: Desk) -> bytes:
    return desk.bundle(desk.receipt(3)).read_bytes()[:-600]


def _flipped(desk: Desk) -> bytes:
    raw = bytearray(desk.bundle(desk.receipt(3)).read_bytes())
    raw[1_700] ^= 4
    return bytes(raw)


@pytest.mark.parametrize(
    ("make", "code", "exit_code"),
    [
        (_wrong_appliance, "document_refused", ExitCode.FAILED),
        (_document_of_another, "document_refused", ExitCode.FAILED),
        (_forged, "unknown_signing_key", ExitCode.DAMAGED),
        (_changed, None, ExitCode.DAMAGED),
        (_truncated, "bad_bundle", ExitCode.DAMAGED),
        (_flipped, "bad_bundle", ExitCode.DAMAGED),
        (lambda _desk: b"not a bundle", "bad_bundle", ExitCode.DAMAGED),
        (lambda _desk: b"{}", "bad_document", ExitCode.DAMAGED),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_right_is_refused_whole(
    desk: Desk, make: object, code: str | None, exit_code: ExitCode
) -> None:
    assert callable(make)
    desk.pin()
    path = desk.stick / "bad.receipt"
    path.write_bytes(make(desk))
    before = _books(desk)
    done = desk.cic("--json", "bundle", "import", path)
    assert done.code == exit_code
    assert code is None or done.error["code"] == code
    assert done.error["message"]
    assert _books(desk) == before


def test_usage_is_not_imported_by_a_site(desk: Desk) -> None:
    desk.cic("bundle", "export", "--to", desk.stick)
    done = desk.cic("--json", "bundle", "import", desk.stick / "factory-7-1-4.usage")
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "document_refused")
    assert "control plane" in done.error["message"]


def test_a_file_that_is_not_there(desk: Desk) -> None:
    desk.pin()
    done = desk.cic("--json", "bundle", "import", desk.stick / "missing")
    assert (done.code, done.error["code"]) == (ExitCode.CONFIGURATION, "bundle_unreadable")


def test_nobody_else_writes_meanwhile(desk: Desk) -> None:
    desk.pin()
    path = desk.bundle(desk.receipt(3))
    with lock.held(desk.site.home.lock_file):
        done = desk.cic("--json", "bundle", "import", path)
    assert (done.code, done.error["code"]) == (ExitCode.CONFLICT, "already_running")
    assert desk.state.accepted_through == 0
