"""What engines leave at their nodes: the ends of their logs, and dumps of those that hung."""

from typing import Annotated, Final

import msgspec

from appliance.wire.admin_message import Message

LOG_LINES_MAX: Final = 200  # of one replica, as its node answers


class ThreadDump(msgspec.Struct, frozen=True, kw_only=True):
    """One thread: where it stands in the kernel. `stack` needs rights the agent may not have."""

    tid: int
    name: str
    state: str  # one letter, proc(5): D waits without heeding signals
    waits_in: str  # the kernel's function; "" or "0": it runs
    stack: str = ""


class ProcessDump(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    name: str
    memory_bytes: int | None  # resident
    thread_count: int
    threads: tuple[ThreadDump, ...]


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """An engine before it was killed. Kept beside its log, the latest for each replica."""

    replica_id: str
    pid: int
    at_ns: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # wall clock of the node
    reason: str
    processes: tuple[ProcessDump, ...]
    log: tuple[str, ...]


class ReplicaLog(Message, frozen=True):
    """The last lines of one replica's process on one node. `problem`: why there are none."""

    replica: str
    node: str
    lines: list[str]
    problem: str = ""


class ReplicaDump(Message, frozen=True):
    """`dump` null without a `problem`: none was ever taken."""

    replica: str
    node: str
    at: str | None  # ISO 8601, UTC
    dump: Dump | None
    problem: str = ""
