"""A backup of a real home: taken while it is written, tried, put back, cut off at every step."""

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.backup import container, restoring, taking
from appliance.backup.container import Opening
from appliance.backup.errors import (
    BackupDamaged,
    BackupError,
    BackupNotWritten,
    HomeInUse,
    NoBackupKey,
    NotABackup,
)
from appliance.backup.restoring import finish, restore
from appliance.backup.taking import take
from appliance.backup.trial import head_of, require_sound, try_out
from appliance.cli import cic
from appliance.domain.clock import SystemClock
from appliance.lock import AlreadyRunning, held
from appliance.security.errors import SealBroken
from appliance.wire.home import Home, find_home

KEY = Opening(secret=b"s" * 32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = CliRunner().invoke(cic, ["--home", str(tmp_path / "home"), "init"])
    assert made.exit_code == 0, made.output
    return find_home(str(tmp_path / "home"))


@pytest.fixture
def backup(home: Home, tmp_path: Path) -> Path:
    return take(home, tmp_path / "stick", KEY, SystemClock(), site="Berlin 1", product="0.1.0").path


def files(folder: Path) -> dict[str, bytes]:
    names = ("config.toml", "registry.db", "ledger.db")
    found = {name: (folder / name).read_bytes() for name in names}
    for path in sorted((folder / "secrets").iterdir()):
        found[f"secrets/{path.name}"] = path.read_bytes()
    return found


def test_what_was_saved_is_put_back(home: Home, backup: Path, tmp_path: Path) -> None:
    assert backup.name.startswith("berlin-1-")
    assert backup.stat().st_mode & 0o777 == 0o600
    fresh = find_home(str(tmp_path / "other"))
    done = restore(backup, fresh, KEY, SystemClock(), replace=False)
    assert done.before is None
    assert not done.tried.problems
    kept = {name: content for name, content in files(home.state).items() if name[:8] == "secrets/"}
    assert {
        name: content for name, content in files(fresh.state).items() if name[:8] == "secrets/"
    } == kept
    assert fresh.config_file.read_bytes() == home.config_file.read_bytes()
    assert not list(fresh.state.glob(".trying-*"))


def test_the_key_that_opens_backups_is_in_none(home: Home, tmp_path: Path) -> None:
    home.backup_key_file.write_bytes(b"s" * 32)
    made = take(home, tmp_path, KEY, SystemClock(), site="s", product="1")
    assert "secrets/backup-key" not in {member.name for member in made.index.members}
    assert "secrets/seal-key" in {member.name for member in made.index.members}


def test_nothing_of_it_can_be_read_without_the_key(home: Home, backup: Path) -> None:
    content = backup.read_bytes()
    for secret in home.secrets.iterdir():
        assert secret.read_bytes()[:16] not in content
    with pytest.raises(SealBroken):
        try_out(backup, Opening(secret=b"x" * 32), backup.parent, lambda _step: None)
    with pytest.raises(NoBackupKey, match="key"):
        try_out(backup, Opening(passphrase="wrong kind"), backup.parent, lambda _step: None)


def test_a_passphrase_opens_it(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "SCRYPT_N", 2**4)
    phrase = Opening(passphrase="five words nobody will guess")
    made = take(home, tmp_path, phrase, SystemClock(), site="s", product="1")
    assert head_of(made.path).protection == "passphrase"
    require_sound(try_out(made.path, phrase, tmp_path, lambda _step: None))
    with pytest.raises(NoBackupKey, match="passphrase"):
        try_out(made.path, KEY, tmp_path, lambda _step: None)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.05, 0.3, 0.7, 0.99, 0.9999])
def test_a_changed_byte_or_a_cut_anywhere_is_refused(
    home: Home, backup: Path, tmp_path: Path, share: float
) -> None:
    content = backup.read_bytes()
    at = int(share * (len(content) - 1))
    damaged = tmp_path / "damaged.clbackup"
    fresh = find_home(str(tmp_path / "other"))
    for changed in (
        content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :],
        content[:at],
        content + b"\0",
    ):
        damaged.write_bytes(changed)
        with pytest.raises((SealBroken, BackupError)):
            restore(damaged, fresh, KEY, SystemClock(), replace=False)
        assert not fresh.config_file.exists()
        assert not list(fresh.state.glob(".trying-*"))
    del home


def test_other_files_are_no_backups(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("text", b"hello\n"), ("head", container.MAGIC)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotABackup):
            head_of(tmp_path / name)
    with pytest.raises(NotABackup, match="cannot be read"):
        head_of(tmp_path / "absent")


def test_it_fits_together_while_the_site_is_written(home: Home, tmp_path: Path) -> None:
    over = threading.Event()

    def write() -> None:
        with sqlite3.connect(home.registry_file, timeout=30) as connection:
            connection.execute("CREATE TABLE busy (n INTEGER)")
            while not over.is_set():
                connection.execute("INSERT INTO busy VALUES (1)")
                connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            made = take(home, tmp_path / "out", KEY, SystemClock(), site="s", product="1")
            require_sound(try_out(made.path, KEY, tmp_path, lambda _step: None))
            made.path.unlink()
    finally:
        over.set()
        writer.join()


def test_a_site_is_replaced_only_when_that_is_said_and_never_while_it_runs(
    home: Home, backup: Path
) -> None:
    with pytest.raises(HomeInUse):
        restore(backup, home, KEY, SystemClock(), replace=False)
    with held(home.lock_file), pytest.raises(AlreadyRunning):
        restore(backup, home, KEY, SystemClock(), replace=True)


def test_what_was_there_is_kept_beside(home: Home, backup: Path) -> None:
    home.backup_key_file.write_bytes(b"s" * 32)
    home.config_file.write_text(home.config_file.read_text() + "# later\n")
    done = restore(backup, home, KEY, SystemClock(), replace=True)
    assert done.before is not None
    assert (done.before / "config.toml").read_text().endswith("# later\n")
    assert (done.before / "registry.db").exists()
    assert not home.config_file.read_text().endswith("# later\n")
    assert home.backup_key_file.read_bytes() == b"s" * 32


class Cut(Exception):
    """The power went."""


@pytest.mark.parametrize("at", range(8))
def test_a_restore_that_was_cut_off_is_carried_on(
    home: Home, backup: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    home.config_file.write_text(home.config_file.read_text() + "# later\n")
    renamed = Path.rename
    count = -1

    def rename(self: Path, target: Path) -> Path:
        nonlocal count
        if (home.state / restoring.PLAN).exists():
            count += 1
            if count == at:
                raise Cut
        return renamed(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Cut):
        restore(backup, home, KEY, SystemClock(), replace=True)
    monkeypatch.undo()
    with held(home.lock_file):
        assert finish(home)
    assert not home.config_file.read_text().endswith("# later\n")
    assert not (home.state / restoring.PLAN).exists()
    assert set(files(home.state)) >= {"registry.db", "ledger.db", "secrets/seal-key"}
    with held(home.lock_file):
        assert not finish(home)


def test_before_the_plan_is_written_the_old_site_is_untouched(
    home: Home, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(home.state)

    def cut(*_arguments: object) -> None:
        raise Cut

    monkeypatch.setattr(restoring, "_write_plan", cut)
    with pytest.raises(Cut):
        restore(backup, home, KEY, SystemClock(), replace=True)
    assert files(home.state) == before


def test_a_full_disk_leaves_nothing_behind(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(taking.container, "write", full)
    with pytest.raises(BackupNotWritten, match="No space left"):
        take(home, tmp_path / "stick", KEY, SystemClock(), site="s", product="1")
    assert list((tmp_path / "stick").iterdir()) == []


def test_a_damaged_ledger_is_found_by_the_trial(home: Home, tmp_path: Path) -> None:
    made = take(home, tmp_path, KEY, SystemClock(), site="s", product="1")
    with sqlite3.connect(home.registry_file) as connection:
        connection.execute("UPDATE state SET audit_head = zeroblob(32)")
    damaged = take(home, tmp_path / "2", KEY, SystemClock(), site="s", product="1")
    require_sound(try_out(made.path, KEY, tmp_path, lambda _step: None))
    with pytest.raises(BackupDamaged, match="audit"):
        require_sound(try_out(damaged.path, KEY, tmp_path, lambda _step: None))
