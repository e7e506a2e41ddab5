"""Whole Linux systems without a network, to install into: a Debian root booted by systemd-nspawn.

A root is made once by debootstrap and kept in the cache; every machine is a layer above it, so that
what a test does is gone with the test. Needs root, debootstrap and systemd-nspawn.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crosslogic" / "roots"
PACKAGES = "systemd,systemd-sysv,dbus,openssl,procps,iproute2,curl"
LAN = "198.18.7.1"  # of RFC 2544's test networks; on an interface that leads nowhere
BOOT_S = 30.0


def why_not() -> str:
    """Why no machine can be made here; empty when one can."""
    if os.environ.get("CROSSLOGIC_MACHINES") != "1":
        return "whole systems are booted by `make test-bundle` only"
    if os.geteuid() != 0:
        return "only root can boot a system"
    missing = [tool for tool in ("debootstrap", "systemd-nspawn") if shutil.which(tool) is None]
    return f"apt-get install {' '.join(missing)}" if missing else ""


def base_root(suite: str) -> Path:
    """A minimal Debian of this suite with systemd, made on first use from a Debian mirror."""
    root, made = CACHE / suite, CACHE / f"{suite}.made"
    if not made.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        made.touch()
    return root


@dataclass(slots=True)
class Machine:
    """`root` is its file system as seen from outside, whether it is booted or not."""

    root: Path
    shared: dict[Path, str] = field(default_factory=dict)
    """Folders of this system that it sees read-only, and where."""
    _nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Returns when its systemd says that it runs."""
        command = ["systemd-nspawn", "--boot", f"--directory={self.root}", "--register=no"]
        command += ["--keep-unit", "--private-network", "--console=pipe", "--quiet"]
        command += [f"--bind-ro={outside}:{inside}" for outside, inside in self.shared.items()]
        with (self.root.parent / "console.log").open("ab") as log:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.CalledProcessError, IndexError):
                if self.run("systemctl", "is-system-running", check=False).strip() in {
                    "running",
                    "degraded",
                }:
                    break
            time.sleep(0.05)
        else:
            log_text = (self.root.parent / "console.log").read_text(errors="replace")
            raise TimeoutError(f"the machine did not boot: {log_text[-2000:]}")
        self.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
        self.run("ip", "address", "add", f"{LAN}/24", "dev", "lan0")
        self.run("ip", "link", "set", "lan1", "up")
        self.run("ip", "link", "set", "lan0", "up")

    @property
    def leader(self) -> int:
        """The machine's process 1, by its number out here."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text()
        return int(children.split()[0])

    def started(self, *command: str) -> "subprocess.Popen[str]":
        """A command that goes on, within the machine and with its environment alone."""
        inside = ["nsenter", "--target", str(self.leader), "--all", "--wdns=/", "--", *command]
        return subprocess.Popen(
            inside,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"},
        )

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 120, given: str | None = None
    ) -> str:
        """Its standard output. Raises AssertionError with both outputs when it fails."""
        process = self.started(*command)
        out, errors = process.communicate(given, timeout_s)
        if check and process.returncode != 0:
            raise AssertionError(f"{command}: exit code {process.returncode}\n{out}\n{errors}")
        return out

    def code(self, *command: str, timeout_s: float = 120) -> tuple[int, str, str]:
        process = self.started(*command)
        out, errors = process.communicate(None, timeout_s)
        return process.returncode, out, errors

    def cut_power(self) -> None:
        """Everything in it ends at once; what was written stays."""
        assert self._nspawn is not None
        os.kill(self.leader, signal.SIGKILL)
        self._nspawn.wait(30)
        self._nspawn = None

    def off(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            with contextlib.suppress(IndexError, ProcessLookupError, FileNotFoundError):
                self.cut_power()
        self._nspawn = None


def files_of(root: Path, folders: Sequence[str]) -> dict[str, tuple[int, int, int, str]]:
    """Every path below these folders: mode, owner, group, and its size or a link's target."""
    found: dict[str, tuple[int, int, int, str]] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            seen = path.lstat()
            what = str(path.readlink()) if path.is_symlink() else str(seen.st_size)
            if path.is_dir() and not path.is_symlink():
                what = "folder"
            found[str(path.relative_to(root))] = (seen.st_mode, seen.st_uid, seen.st_gid, what)
    return found


@contextlib.contextmanager
def machine(suite: str, folder: Path, shared: dict[Path, str] | None = None) -> Iterator[Machine]:
    """A machine that is not booted yet; in `folder` are its layer and its console's output."""
    layer, aside, root = folder / "layer", folder / "aside", folder / "root"
    for made in (layer, aside, root):
        made.mkdir(parents=True)
    options = f"lowerdir={base_root(suite)},upperdir={layer},workdir={aside}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    made_here = Machine(root, shared or {})
    try:
        yield made_here
    finally:
        made_here.off()
        subprocess.run(["umount", "--lazy", str(root)], check=True)
