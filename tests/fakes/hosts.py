"""Hosts of the tests' own: network namespaces on one switch, each with a loopback and an address.

Needs root and iproute2. A host that is cut off is unplugged from the switch: its packets vanish,
nothing tells anybody, and both sides keep their addresses.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SUBNET = "198.18.0"  # RFC 2544: for benchmarks, routed nowhere


@dataclass(frozen=True, slots=True)
class Host:
    """One machine: a namespace, and its port of the switch."""

    namespace: str
    switch: str
    port: str
    address: str

    def command(self, *arguments: str | Path) -> list[str]:
        """What runs these arguments on this host."""
        return ["ip", "netns", "exec", self.namespace, *map(str, arguments)]

    def run(
        self, *arguments: str | Path, deadline_s: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )

    def cut_off(self) -> None:
        _ip("-n", self.switch, "link", "set", self.port, "nomaster")

    def heal(self) -> None:
        _ip("-n", self.switch, "link", "set", self.port, "master", "br0")

    def processes(self) -> list[int]:
        found = _ip("netns", "pids", self.namespace)
        return [int(pid) for pid in found.split()]


@cache
def why_not() -> str:
    """Why there can be no such hosts here; "": there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    try:
        with hosts("probe"):
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.strip()}"


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[Sequence[Host]]:
    """Hosts that see each other. Whatever still runs on them at the end is killed."""
    prefix = f"cic-{os.getpid()}"
    switch = f"{prefix}-switch"
    made: list[Host] = []
    _ip("netns", "add", switch)
    try:
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        for number, name in enumerate(names, 1):
            host = Host(f"{prefix}-{name}", switch, f"port{number}", f"{SUBNET}.{number}")
            _ip("netns", "add", host.namespace)
            made.append(host)
            plug = ("type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _ip("-n", switch, "link", "add", host.port, *plug)
            _ip("-n", switch, "link", "set", host.port, "master", "br0", "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            _ip("-n", host.namespace, "route", "add", "default", "via", f"{SUBNET}.254")
        yield made
    finally:
        for host in made:
            for pid in host.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _ip("netns", "del", host.namespace)
        _ip("netns", "del", switch)


def _ip(*arguments: str) -> str:
    return subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, timeout=30, check=True
    ).stdout
