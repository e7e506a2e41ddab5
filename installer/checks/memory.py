"""Checks of the server's memory."""

from __future__ import annotations

from installer.checks.findings import Verdict, Wanted, blocker, check, note, ok, unknown, warning
from installer.checks.host import Host
from installer.checks.pci import hardware
from installer.checks.reading import GIB, hard_limit, memory_bytes, mount_of, number, size, words

GATEWAY_MIN = 2 * GIB
NODE_ADVISED = 16 * GIB
SHARED_MIN = GIB
MEMLOCK_MIN = 64 * 1024
_SHARED = "/dev/shm"  # noqa: S108 (looked at, nothing is written)


@check(
    "memory.total",
    looks_at="`MemTotal`: 2 GiB at least, 16 GiB advised for a node",
    why="gateway and agent need 1 GiB; a model is loaded through the server's memory",
    fix="free -h; give the server more memory",
)
def total(host: Host, wanted: Wanted) -> Verdict:
    there = memory_bytes(host)["MemTotal"]
    if there < GATEWAY_MIN * 0.9:  # firmware and kernel keep some of what is built in
        return blocker(f"{size(there)} of memory, at least 2 GiB are needed")
    if wanted.is_node and there < NODE_ADVISED * 0.9:
        return warning(f"{size(there)} of memory; small models alone will fit")
    return ok(size(there))


@check(
    "memory.available",
    looks_at="`MemAvailable`: 1 GiB at least",
    why="what others use up is not there for the services; the kernel would end one of them",
    fix="ps aux --sort=-rss | head; end or move what takes the memory",
)
def available(host: Host, _: Wanted) -> Verdict:
    free = memory_bytes(host).get("MemAvailable", 0)
    return (ok if free >= GIB else warning)(f"{size(free)} can be used")


@check(
    "memory.swap",
    looks_at="`SwapTotal` and `SwapFree`",
    why="a server that swaps answers seconds late, and secrets may reach the swap's disk",
    fix="swapon --show; find what takes the memory; swapoff -a where the memory suffices",
)
def swap(host: Host, _: Wanted) -> Verdict:
    told = memory_bytes(host)
    used = told.get("SwapTotal", 0) - told.get("SwapFree", 0)
    if used > GIB and used > told["SwapTotal"] // 2:
        return warning(f"{size(used)} are swapped out")
    return ok(f"{size(used)} swapped out of {size(told.get('SwapTotal', 0))}")


@check(
    "memory.hugepages",
    looks_at="`HugePages_Total` × `Hugepagesize`, under half of the memory",
    why="memory set aside as huge pages is not there for engines, which do not ask for them",
    fix="sysctl -w vm.nr_hugepages=0, and look into /etc/sysctl.d",
)
def hugepages(host: Host, _: Wanted) -> Verdict:
    told = memory_bytes(host)
    kept = told.get("HugePages_Total", 0) * told.get("Hugepagesize", 0)
    return (warning if kept > told["MemTotal"] // 2 else ok)(f"{size(kept)} in huge pages")


@check(
    "memory.transparent_hugepages",
    looks_at="`/sys/kernel/mm/transparent_hugepage/enabled`",
    why="`never` makes the loading of large models slower",
    fix="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
)
def transparent(host: Host, _: Wanted) -> Verdict:
    told = words(host, "/sys/kernel/mm/transparent_hugepage/enabled")
    return note("never") if "[never]" in told else ok("madvise, always or not built in")


@check(
    "memory.overcommit",
    looks_at="`vm.overcommit_memory`, not 2",
    why="with strict accounting CUDA cannot reserve its address space, and engines do not start",
    fix="sysctl -w vm.overcommit_memory=0, and keep it in /etc/sysctl.d",
)
def overcommit(host: Host, wanted: Wanted) -> Verdict:
    strict = number(host, "/proc/sys/vm/overcommit_memory") == 2
    if not strict:
        return ok("memory may be reserved beyond what is there")
    return (warning if wanted.is_node else note)("vm.overcommit_memory is 2")


@check(
    "memory.locked",
    looks_at="the hard limit of locked memory",
    why="NCCL over InfiniBand locks memory; the units set their own limit, other starts have "
    "this one",
    fix="echo '* hard memlock unlimited' > /etc/security/limits.d/90-memlock.conf; log in again",
)
def locked(host: Host, _: Wanted) -> Verdict:
    limit = hard_limit(host, "Max locked memory")
    if limit is not None and limit < MEMLOCK_MIN:
        return note(f"at most {limit // 1024} KiB may be locked")
    return ok("unlimited" if limit is None else size(limit))


@check(
    "memory.shared",
    looks_at="the size of `/dev/shm`: 1 GiB at least with several GPUs",
    why="the processes of one engine exchange data there; a small one ends them with a bus error",
    fix="mount -o remount,size=16G /dev/shm, and keep it in /etc/fstab",
)
def shared(host: Host, _: Wanted) -> Verdict:
    if host.facts(_SHARED) is None or mount_of(host, _SHARED) is None:
        return unknown(f"{_SHARED} cannot be seen", "findmnt /dev/shm")
    room = host.space(_SHARED).bytes_total
    several = len(hardware(host).nvidia) > 1
    return (warning if several and room < SHARED_MIN else ok)(size(room))


@check(
    "memory.numa",
    looks_at="`kernel.numa_balancing` on machines with several nodes of memory",
    why="the kernel moves pages of engines between sockets, which costs them time",
    fix="sysctl -w kernel.numa_balancing=0, and keep it in /etc/sysctl.d",
)
def numa(host: Host, _: Wanted) -> Verdict:
    nodes = [name for name in host.names("/sys/devices/system/node") if name[4:].isdigit()]
    if len(nodes) > 1 and number(host, "/proc/sys/kernel/numa_balancing"):
        return note(f"{len(nodes)} nodes of memory, and pages are moved between them")
    return ok(f"{len(nodes) or 1} node(s) of memory")


CHECKS = (
    total, available, swap, hugepages, transparent, overcommit, locked, shared, numa,
)  # fmt: skip
