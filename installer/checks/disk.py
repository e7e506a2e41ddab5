"""Checks of the disks: room, kind, speed."""

from __future__ import annotations

import re

from installer.checks.findings import Verdict, Wanted, blocker, check, note, ok, unknown, warning
from installer.checks.gpu import kernel_log
from installer.checks.host import Host
from installer.checks.reading import GIB, mount_of, size, words

OPT_MIN = GIB
VAR_MIN, VAR_ADVISED = 5 * GIB, 20 * GIB
LOG_ADVISED = GIB
INODES_MIN = 20_000
SYNC_MAX_S, SYNC_ADVISED_S = 0.25, 0.02
_STATE = "/var/lib/crosslogic"
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
    "gpfs",
    "9p",
    "afs",
}


@check(
    "disk.opt",
    looks_at="free bytes of `/opt`: 1 GiB at least",
    why="two versions lie beside each other during an upgrade",
    fix="df -h /opt; make room, or mount a larger volume there",
)
def opt(host: Host, _: Wanted) -> Verdict:
    free = host.space("/opt").bytes_free
    return (ok if free >= OPT_MIN else blocker)(f"{size(free)} free in /opt")


@check(
    "disk.state",
    looks_at="free bytes of `/var/lib/crosslogic`: 5 GiB at least, 20 GiB advised",
    why="the ledger grows with every request, and a full disk stops the endpoint",
    fix="df -h /var/lib; make room, or mount a volume at /var/lib/crosslogic",
)
def state(host: Host, _: Wanted) -> Verdict:
    free = host.space(_STATE).bytes_free
    if free < VAR_MIN:
        return blocker(f"{size(free)} free in /var/lib, at least 5 GiB are needed")
    return (ok if free >= VAR_ADVISED else warning)(f"{size(free)} free in /var/lib")


@check(
    "disk.models",
    looks_at="free bytes of `/var/lib/crosslogic/models`: 100 GB, or what `--models-gb` names",
    why="models are large; one that does not fit is refused while it is copied",
    fix="df -h /var/lib; mount a volume at /var/lib/crosslogic/models, or keep fewer models",
)
def models(host: Host, wanted: Wanted) -> Verdict:
    free = host.space(f"{_STATE}/models").bytes_free
    asked = f"{wanted.models_bytes / 1000**3:.0f} GB"
    if free < wanted.models_bytes:
        return warning(f"{size(free)} free for models, {asked} are wanted")
    return ok(f"{size(free)} free for models")


@check(
    "disk.inodes",
    looks_at="free inodes of `/opt` and `/var/lib`: 20,000 at least",
    why="a version has thousands of files; without inodes nothing is written though there is room",
    fix="df -i /opt /var/lib; remove what has many small files",
)
def inodes(host: Host, _: Wanted) -> Verdict:
    for path in ("/opt", "/var/lib"):
        space = host.space(path)
        if space.inodes and space.inodes_free < INODES_MIN:
            return blocker(f"{space.inodes_free:,} inodes free in {path}")
    return ok("enough inodes in /opt and /var/lib")


@check(
    "disk.log",
    looks_at="free bytes of `/var/log`: 1 GiB advised",
    why="logs that cannot be written are missing when they are asked for",
    fix="df -h /var/log; journalctl --vacuum-size=500M",
)
def log(host: Host, _: Wanted) -> Verdict:
    free = host.space("/var/log").bytes_free
    return (ok if free >= LOG_ADVISED else warning)(f"{size(free)} free in /var/log")


@check(
    "disk.file_system",
    looks_at="the type of the file system of `/var/lib/crosslogic`",
    why="SQLite's log needs shared memory and locks that network file systems do not give; RAM "
    "forgets",
    fix="mount a local disk with ext4 or XFS at /var/lib/crosslogic; models alone may lie on a "
    "network",
)
def file_system(host: Host, _: Wanted) -> Verdict:
    mount = mount_of(host, _STATE)
    if mount is None:
        return unknown("the mounts cannot be seen", "findmnt -T /var/lib")
    if mount.type in _NETWORK or mount.type.startswith("fuse."):
        return blocker(f"{mount.type} over the network or in user space at {mount.point}")
    if mount.type in {"tmpfs", "ramfs"}:
        return blocker(f"{mount.type} at {mount.point}: all is lost with the next boot")
    if mount.type in {"overlay", "aufs"}:
        return warning(f"{mount.type} at {mount.point}: a layer of a container is lost with it")
    return ok(f"{mount.type} at {mount.point}")


@check(
    "disk.rotating",
    looks_at="`queue/rotational` of the disk of `/var/lib/crosslogic`",
    why="each request waits for one write that is synced; a rotating disk takes 10 ms and more "
    "for it",
    fix="lsblk -d -o NAME,ROTA; mount a volume on SSD at /var/lib/crosslogic",
)
def rotating(host: Host, _: Wanted) -> Verdict:
    mount = mount_of(host, _STATE)
    if mount is None:
        return unknown("the mounts cannot be seen", "findmnt -T /var/lib")
    for place in ("queue", "../queue"):  # a partition has its disk's folder above it
        kind = words(host, f"/sys/dev/block/{mount.device}/{place}/rotational")
        if kind:
            return note("a rotating disk") if kind == "1" else ok("a disk that does not rotate")
    return ok("a file system that names no disk")


@check(
    "disk.latency",
    looks_at="writing and syncing 4 KiB a few times beside `/var/lib/crosslogic` (0.8 s at most)",
    why="the ledger is synced before the last byte of an answer leaves: this time is added to it",
    fix="fio or iostat -x 1; use a local SSD, look at the disk's health and at the storage network",
)
def latency(host: Host, _: Wanted) -> Verdict:
    taken = host.sync_latency_s(_STATE)
    shown = f"{taken * 1000:.1f} ms for a synced write"
    if taken > SYNC_MAX_S:
        return warning(f"{shown}: the disk is in trouble, or not local")
    return (ok if taken <= SYNC_ADVISED_S else note)(shown)


@check(
    "disk.errors",
    looks_at="the kernel's log (`dmesg`) for errors of disks and file systems",
    why="a disk that begins to fail takes the ledger and its keys with it",
    fix="journalctl -k -p err; smartctl -a DISK; exchange the disk before installing",
)
def errors(host: Host, _: Wanted) -> Verdict:
    told = kernel_log(host)
    if told is None or told.code != 0:
        return unknown("run as root to see the kernel's log")
    bad = re.findall(
        r"I/O error, dev (?!loop|sr|fd)\w+|EXT4-fs error|XFS \(\w+\): Corruption|"
        r"critical medium error",
        told.out,
    )
    return (
        warning(f"{len(bad)} errors since the boot: {bad[0]}") if bad else ok("none since the boot")
    )


CHECKS = (opt, state, models, inodes, log, file_system, rotating, latency, errors)
