"""A bundle: a folder that install.sh has checked, or a folder or archive that is checked here."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from installer.errors import InstallerError, NotGenuine
from installer.files import PARTIAL, sha256_of
from installer.programs import find, run

SUMS, SIGNATURE, KEY = "SHA256SUMS", "SHA256SUMS.sig", "release-key.pem"
_AGAIN = "Copy the bundle again from where you obtained it, and unpack it into an empty folder."


@dataclass(frozen=True, slots=True)
class Bundle:
    folder: Path
    version: str

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def key(self) -> Path:
        return self.folder / KEY


def bundle_in(folder: Path) -> Bundle:
    """The bundle of a folder; its content is not checked here. Raises InstallerError."""
    told = sorted((folder / "tree/app").glob("crosslogic_appliance-*.dist-info"))
    if len(told) != 1 or not (folder / "tree/bin/cic").is_file():
        raise InstallerError(
            f"{folder} is not the folder of an unpacked appliance bundle.",
            next_step="Run ./install.sh in the bundle's folder, or name the folder or the .tar.gz.",
        )
    version = told[0].name.removeprefix("crosslogic_appliance-").removesuffix(".dist-info")
    return Bundle(folder, version)


def verify(folder: Path, key: Path) -> None:
    """Raises NotGenuine unless every file is as `key` signed it, and no other file is there.

    The same rules as install.sh: an installed version checks the next one by itself, with the key
    that it was installed with.
    """
    openssl = find("openssl")
    if openssl is None:
        raise InstallerError(
            "openssl is not installed, so the bundle's signature cannot be checked.",
            next_step="Install the package openssl from your distribution's medium.",
        )
    for name in (SUMS, SIGNATURE):
        if not (folder / name).is_file() or (folder / name).is_symlink():
            raise NotGenuine(
                f"{folder / name} is missing or is not a plain file.", next_step=_AGAIN
            )
    signed = ["-signature", str(folder / SIGNATURE), str(folder / SUMS)]
    if run([openssl, "dgst", "-sha256", "-verify", str(key), *signed]).code:
        raise NotGenuine(
            f"{folder} is not signed by the key {key}.",
            next_step=f"{_AGAIN} A vendor that has changed its key tells so on another way.",
        )
    listed = {}
    for line in (folder / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    found = set()
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise NotGenuine(f"{name} is neither a file nor a folder.", next_step=_AGAIN)
        if path.is_file() and name not in {SUMS, SIGNATURE}:
            found.add(name)
    odd = sorted(found ^ set(listed))
    if odd:
        what = "missing from" if odd[0] in listed else "not part of"
        raise NotGenuine(f"{odd[0]} is {what} the bundle.", next_step=_AGAIN)
    for name in sorted(listed):
        if sha256_of(folder / name) != listed[name]:
            raise NotGenuine(f"{name} is not as it was signed.", next_step=_AGAIN)


def others_may_write(folder: Path) -> bool:
    """Whether anybody but who runs this and root could change a file after it was checked.

    Raises NotGenuine for what is neither a file nor a folder.
    """
    mine = {0, os.geteuid()}
    for parent in folder.resolve().parents:
        found = parent.stat()
        sticky = found.st_mode & stat.S_ISVTX  # nobody renames what is another's there
        if found.st_uid not in mine or (found.st_mode & 0o022 and not sticky):
            return True
    for path in (folder, *folder.rglob("*")):
        found = path.lstat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            name = path.relative_to(folder)
            raise NotGenuine(f"{name} is neither a file nor a folder.", next_step=_AGAIN)
        if found.st_uid not in mine or found.st_mode & 0o022:
            return True
    return False


def unpack_archive(archive: Path, into: Path, *, at_most: int) -> Path:
    """The one top folder of a .tar.gz, unpacked into `into`, which is made anew.

    `at_most`: bytes. An archive of more fills no disk before its signature is looked at.

    A bundle has folders and files alone; anything else, or a name that leaves the folder, ends it
    before it is made. Raises NotGenuine.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(mode=0o700)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                at_most -= member.size
                _unpack_member(tar, member, into, room=at_most)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        shutil.rmtree(into, ignore_errors=True)
        raise NotGenuine(f"{archive} cannot be unpacked: {error}.", next_step=_AGAIN) from error
    found = sorted(into.iterdir())
    if len(found) != 1 or not found[0].is_dir():
        raise NotGenuine(f"{archive} is not the archive of a bundle.", next_step=_AGAIN)
    return found[0]


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, *, room: int) -> None:
    if room < 0:
        raise tarfile.TarError("it holds more than its end says")
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not (member.isdir() or member.isreg()):
        raise tarfile.TarError(f"it holds {member.name}, which no bundle does")
    target = into / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.TarError(f"{member.name} has no content")
    with target.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)


def beside(bundle: Bundle, pattern: str) -> Path | None:
    """The one neighbour of the bundle's folder with a name like that; None when none or several."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = [
            path
            for path in sorted(bundle.folder.parent.glob(pattern))
            if not path.name.endswith(PARTIAL)
        ]
    return found[0] if len(found) == 1 else None
