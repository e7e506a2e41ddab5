"""Journal, manifest, files: what a power cut may tear, and what is told of it afterwards."""

from pathlib import Path

import pytest

from installer.errors import InstallerError
from installer.files import append_line, copy_tree, switch_link, write_whole
from installer.layout import Layout
from installer.making import Maker
from installer.records import Journal, Made, Manifest, read_lines
from installer.removal import removable, remove


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path)
    found.records.mkdir(parents=True)
    return found


def test_the_journal_tells_the_operation_that_was_cut_short(layout: Layout) -> None:
    journal = Journal(layout.journal)
    assert journal.unfinished() is None
    journal.begin("install", {"version": "1"})
    journal.step("tree")
    journal.done("tree")
    journal.step("site")
    found = journal.unfinished()
    assert found is not None
    assert (found.kind, found.done, found.facts) == ("install", {"tree"}, {"version": "1"})
    journal.end("finished")
    assert journal.unfinished() is None
    journal.begin("uninstall", {})
    assert journal.unfinished() is not None


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_line_is_as_if_it_was_never_written(layout: Layout, cut: int) -> None:
    journal = Journal(layout.journal)
    journal.begin("install", {"version": "1"})
    whole = layout.journal.read_bytes()
    journal.end("finished")
    end = layout.journal.read_bytes()
    layout.journal.write_bytes(end[: len(whole) + cut])  # the power went within the last line
    assert journal.unfinished() is not None
    journal.end("undone")
    assert journal.unfinished() is None
    assert [entry["event"] for entry in read_lines(layout.journal)] == ["begin", "end"]


def test_a_damaged_manifest_ends_everything_and_says_so(layout: Layout) -> None:
    layout.manifest.write_text("{")
    with pytest.raises(InstallerError, match="is damaged"):
        Manifest(layout)


def test_a_path_is_noted_before_it_is_made_and_read_back(layout: Layout) -> None:
    manifest = Manifest(layout)
    maker = Maker(layout, manifest)
    maker.folder(layout.config, 0o750, kind="data")
    assert maker.file(layout.config_file, b"a = 1\n", 0o640, kind="settings")
    read = Manifest(layout)
    made = read.made["/etc/crosslogic/config.toml"]
    assert (made.kind, made.mode) == ("settings", "0640")
    assert made.owner
    assert read.made["/etc"].kind == "folder"


def test_what_was_there_before_is_never_ours(layout: Layout) -> None:
    layout.config.mkdir(parents=True)
    layout.config_file.write_text("theirs")
    manifest = Manifest(layout)
    maker = Maker(layout, manifest)
    maker.folder(layout.config, 0o750, kind="data")
    assert not maker.file(layout.config_file, b"ours", 0o640, kind="settings")
    assert remove(layout, manifest, removable(manifest, purge=True), purge=True) == []
    assert layout.config_file.read_text() == "theirs"


def test_a_link_that_was_turned_elsewhere_stays(layout: Layout) -> None:
    manifest = Manifest(layout)
    maker = Maker(layout, manifest)
    link = layout.command("cic")
    maker.link(link, "/opt/crosslogic/current/bin/cic")
    link.unlink()
    link.symlink_to("/usr/local/bin/cic")
    notes = remove(layout, manifest, removable(manifest, purge=True), purge=True)
    assert any("/usr/bin/cic" in note for note in notes)
    assert str(link.readlink()) == "/usr/local/bin/cic"


def test_a_purge_follows_no_link_out_of_the_data(layout: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    manifest = Manifest(layout)
    Maker(layout, manifest).folder(layout.home, 0o750, kind="data")
    (layout.home / "models").symlink_to(outside)
    assert remove(layout, manifest, removable(manifest, purge=True), purge=True) == []
    assert not layout.home.exists()
    assert (outside / "kept").read_text() == "kept"


def test_accounts_go_last_and_users_before_groups(layout: Layout) -> None:
    manifest = Manifest(layout)
    for name in ("group:crosslogic", "/opt", "user:crosslogic", "/opt/crosslogic"):
        manifest.note(name, Made("account" if ":" in name else "folder"))
    order = removable(manifest, purge=True)
    assert order == ["/opt/crosslogic", "/opt", "user:crosslogic", "group:crosslogic"]
    assert removable(manifest, purge=False) == ["/opt/crosslogic", "/opt"]


def test_files_are_whole_or_as_before(tmp_path: Path) -> None:
    file = tmp_path / "f"
    (tmp_path / ".f.partial").write_text("left by a power cut")
    write_whole(file, b"new", 0o640)
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["f"]
    (tmp_path / "l").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        append_line(tmp_path / "l", "x")
    switch_link(tmp_path / "l", "f")
    assert (tmp_path / "l").read_bytes() == b"new"


def test_a_tree_that_was_half_copied_is_copied_anew(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    (source / "bin/run").write_text("x")
    (source / "bin/run").chmod(0o700)
    target = tmp_path / "1.0"
    (tmp_path / "1.0.partial").mkdir()
    (tmp_path / "1.0.partial/rest").write_text("of an earlier try")
    assert list(copy_tree(source, target))[-1] == 1
    assert [str(p.relative_to(target)) for p in target.rglob("*")] == ["bin", "bin/run"]
    assert (target / "bin/run").stat().st_mode & 0o777 == 0o755
    assert list(copy_tree(source, target)) == []
