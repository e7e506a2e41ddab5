"""Secret files: made once, closed to others, whole or not there."""

import os
import stat
from pathlib import Path

import pytest

from appliance.security.errors import SecretDamaged, SecretExposed, SecretMissing, SecurityError
from appliance.security.secrets import (
    PEPPER_FILE,
    SEAL_KEY_FILE,
    create_all,
    load_all,
    read_secret,
    write_secret,
)
from tests.fakes.entropy import SeededEntropy


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "secrets"
    create_all(folder, SeededEntropy())
    return folder


def test_created_secrets_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_all(tmp_path / "open")
        os.umask(0o777)
        create_all(tmp_path / "shut")
    finally:
        os.umask(before)
    for folder in (tmp_path / "open", tmp_path / "shut"):
        assert mode(folder) == 0o700
        assert [mode(file) for file in sorted(folder.iterdir())] == [0o600, 0o600]
        load_all(folder)


def test_secrets_differ_and_are_32_bytes(folder: Path) -> None:
    secrets = load_all(folder)
    assert len(secrets.pepper) == len(secrets.seal_key) == 32
    assert secrets.pepper != secrets.seal_key
    assert sorted(file.name for file in folder.iterdir()) == sorted([PEPPER_FILE, SEAL_KEY_FILE])


def test_creating_again_keeps_what_is_there_and_adds_what_is_missing(folder: Path) -> None:
    before = load_all(folder)
    (folder / SEAL_KEY_FILE).unlink()
    create_all(folder, SeededEntropy(9))
    after = load_all(folder)
    assert after.pepper == before.pepper
    assert after.seal_key != before.seal_key


def test_printing_the_secrets_prints_none(folder: Path) -> None:
    secrets = load_all(folder)
    assert "pepper" not in repr(secrets)
    assert repr(secrets.pepper) not in f"{secrets}{secrets!r}"


def test_a_missing_secret_is_named_with_the_next_step(folder: Path) -> None:
    (folder / PEPPER_FILE).unlink()
    with pytest.raises(SecretMissing) as caught:
        load_all(folder)
    assert str(folder / PEPPER_FILE) in caught.value.message
    assert "cic init" in caught.value.next_step
    assert caught.value.code == "secret_missing"


@pytest.mark.parametrize("open_mode", [0o640, 0o604, 0o644, 0o660, 0o620])
def test_a_file_open_to_others_is_refused(folder: Path, open_mode: int) -> None:
    (folder / PEPPER_FILE).chmod(open_mode)
    with pytest.raises(SecretExposed) as caught:
        load_all(folder)
    assert caught.value.next_step == f"Run: chmod 600 {folder / PEPPER_FILE}"


def test_a_folder_open_to_others_is_refused(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(SecretExposed) as caught:
        load_all(folder)
    assert caught.value.next_step == f"Run: chmod 700 {folder}"


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_file_of_the_wrong_length_is_refused(folder: Path, content: bytes) -> None:
    write_secret(folder / PEPPER_FILE, content)
    with pytest.raises(SecretDamaged):
        load_all(folder)


def test_a_link_in_place_of_a_secret_is_refused(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / PEPPER_FILE).rename(elsewhere)
    (folder / PEPPER_FILE).symlink_to(elsewhere)
    with pytest.raises(SecretExposed):
        load_all(folder)


def test_another_account_s_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / PEPPER_FILE
    if os.geteuid() == 0:
        os.chown(path, 65_534, -1)  # as root it can be given away
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SecretExposed, match="another account"):
        read_secret(path)


def test_a_leftover_of_a_crash_does_no_harm(folder: Path) -> None:
    """Killed between writing and renaming: the old secret stands, and writing works again."""
    leftover = folder / f".{PEPPER_FILE}.new"
    leftover.write_bytes(b"half")
    before = load_all(folder).pepper
    write_secret(folder / PEPPER_FILE, b"n" * 32)
    assert before != load_all(folder).pepper == b"n" * 32
    assert not leftover.exists()


def test_the_file_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the file, then the rename, then fsync of the folder."""
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    write_secret(tmp_path / "secret", b"s" * 32)
    assert steps == ["file", "rename", "folder"]


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(SecurityError) as caught:
        create_all(Path("/proc/crosslogic/secrets"))
    assert "/proc/crosslogic/secrets" in caught.value.message
    assert caught.value.next_step
