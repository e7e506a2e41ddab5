"""What the checks may ask of a server, and nothing more.

The environment's values cannot be asked for at all: only the names that are set.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

COMMAND_TIMEOUT_S = 2.5


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of one path, its links followed."""

    mode: int
    """Permission bits, such as 0o666."""
    inode: int = 0
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """Room of the file system that holds a path. `inodes` is 0 where it counts none."""

    bytes_free: int
    bytes_total: int
    inodes_free: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str = ""


class Host(Protocol):
    """A server as the checks see it.

    Rules:
    - A path that is not there raises FileNotFoundError from `read`, gives () from `names` and
      None from `facts`.
    - What this account may not see raises PermissionError.
    - A command that is not installed raises FileNotFoundError; one that does not end in time
      raises TimeoutError.
    """

    def read(self, path: str) -> str: ...
    def names(self, path: str) -> tuple[str, ...]: ...
    def facts(self, path: str) -> FileFacts | None: ...
    def link(self, path: str) -> str | None:
        """Where a link points to, whether that is there or not; None for what is no link."""
        ...

    def space(self, path: str) -> SpaceFacts:
        """Of the path or, while that is not there, of the nearest folder above it."""
        ...

    def run(self, *command: str) -> Output: ...
    def variables(self) -> frozenset[str]:
        """The names of the environment's variables, as they are written."""
        ...

    def no_proxy_covers(self, address: str) -> bool:
        """Whether the no_proxy variable keeps calls to the address away from a proxy."""
        ...

    def speaks_utf8(self) -> bool: ...
    def is_root(self) -> bool: ...
    def machine(self) -> str: ...
    def libc(self) -> tuple[str, str]:
        """Name and version of the C library: ("glibc", "2.36")."""
        ...

    def now(self) -> datetime: ...
    def own_processes(self) -> frozenset[str]:
        """Numbers of this process and of those that started it."""
        ...

    def socket_owner(self, inode: int) -> str | None:
        """Name of the process that holds a socket; None when that cannot be seen."""
        ...

    def sync_latency_s(self, path: str) -> float:
        """Seconds that writing 4 KiB and syncing it takes at the path, the median of a few."""
        ...
