"""The application tree: locked wheels for the target, unpacked, compiled and thinned out."""

import csv
import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from hashlib import sha256
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHON = "3.13"
ABIS = ("cp313", "abi3", "none")
GLIBC_MINORS = (5, 12, 17, 24, 26, 27, 28)
PLATFORMS = (
    "manylinux1_x86_64",
    "manylinux2010_x86_64",
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS),
)
# sqlite-utils declares pip for a command that nobody runs here; nothing installs on a site.
NEVER = {"pip"}
# The tree's interpreter and platform, as far as the markers of the lock ask.
TARGET = {
    "python_version": PYTHON,
    "python_full_version": "3.13.5",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "extra": "",
}
NEEDLESS_FOLDERS = {"tests", "test", "testing", "__pycache__"}
NEEDED_FOLDERS = {"httpx/testing"}
NEEDLESS_SUFFIXES = {".pyi", ".pyx", ".pxd", ".c", ".h", ".cpp", ".exe"}


@dataclass(frozen=True, slots=True)
class Wheel:
    file: Path
    name: str
    version: str
    licence: str
    sha256: str
    requires: tuple[str, ...]


def read_wheel(file: Path) -> Wheel:
    with zipfile.ZipFile(file) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return Wheel(
        file=file,
        name=canonicalize_name(metadata["Name"]),
        version=metadata["Version"],
        licence=_licence(metadata),
        sha256=sha256(file.read_bytes()).hexdigest(),
        requires=tuple(metadata.get_all("Requires-Dist") or ()),
    )


def _licence(metadata: Message) -> str:
    declared = (
        metadata.get("License-Expression") or (metadata.get("License") or "").partition("\n")[0]
    )
    named = [
        c.rpartition(" :: ")[2]
        for c in metadata.get_all("Classifier") or []
        if c.startswith("License ::")
    ]
    return str(declared or ", ".join(named) or "see the licence file")


def download(lock: Path, into: Path) -> None:
    """Every wheel of the lock for the target, each checked against its hash; sdists are refused."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
    command += ["--no-deps", "--require-hashes", "--python-version", PYTHON]
    command += ["--implementation", "cp", "--dest", str(into), "--requirement", str(lock)]
    for abi in ABIS:
        command += ["--abi", abi]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run(command, check=True)


def closure(root: Wheel, wheels: dict[str, Wheel]) -> list[Wheel]:
    """The project and what it needs on the target, by name; build tools and engines stay out."""
    chosen: dict[str, Wheel] = {}
    waiting: list[tuple[Wheel, frozenset[str]]] = [(root, frozenset())]
    while waiting:
        wheel, extras = waiting.pop()
        chosen[wheel.name] = wheel
        for requirement in map(Requirement, wheel.requires):
            name = canonicalize_name(requirement.name)
            marker = requirement.marker
            wanted = marker is None or any(
                marker.evaluate({**TARGET, "extra": extra}) for extra in ({""} | extras)
            )
            if not wanted or name in NEVER or name in chosen:
                continue
            waiting.append((wheels[name], frozenset(requirement.extras)))
    return sorted(chosen.values(), key=lambda wheel: wheel.name)


def unpack(wheel: Wheel, into: Path) -> None:
    """A wheel's files as site-packages has them; scripts are left out, and what nobody imports."""
    with zipfile.ZipFile(wheel.file) as archive:
        for entry in sorted(archive.namelist()):
            path = PurePosixPath(entry)
            if entry.endswith("/") or is_needless(path):
                continue
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{wheel.file.name} holds the path {entry}")
            target = into / path
            if target.exists():
                raise ValueError(f"{entry} of {wheel.file.name} is there already")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_without_record_of_needless(path, archive.read(entry)))
            runs = archive.getinfo(entry).external_attr >> 16 & 0o100
            target.chmod(0o755 if runs else 0o644)


def is_needless(path: PurePosixPath) -> bool:
    if ".data" in path.parts[0] or "licenses" in path.parts:
        return ".data" in path.parts[0]
    if path.suffix in NEEDLESS_SUFFIXES:
        return True
    folders = path.parts[:-1]
    return bool(NEEDLESS_FOLDERS & set(folders)) and not any(
        str(path).startswith(kept) for kept in NEEDED_FOLDERS
    )


def _without_record_of_needless(path: PurePosixPath, content: bytes) -> bytes:
    if path.name != "RECORD" or not path.parts[0].endswith(".dist-info"):
        return content
    rows = [row for row in csv.reader(io.StringIO(content.decode())) if row]
    kept = [row for row in rows if not is_needless(PurePosixPath(row[0]))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(kept)
    return text.getvalue().encode()


def compile_tree(python: Path, *folders: Path) -> None:
    """Compiles with the tree's own interpreter; the .pyc are never compared with their sources."""
    for folder in folders:
        subprocess.run(
            [
                *(str(python), "-I", "-m", "compileall", "-q", "-f", "-s", str(folder)),
                *("--invalidation-mode", "unchecked-hash", str(folder)),
            ],
            check=True,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        )
