"""Checks of what is installed already, or being installed at this moment."""

from __future__ import annotations

from itertools import pairwise

from installer.checks.findings import Verdict, Wanted, blocker, check, note, ok, unknown, warning
from installer.checks.host import Host
from installer.checks.reading import processes, words

_VERBS = {"install", "join", "upgrade", "rollback", "restore", "uninstall"}
_PACKAGE_LOCKS = (
    "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/rpm/.rpm.lock",
    "/usr/lib/sysimage/rpm/.rpm.lock", "/run/zypp.pid",
)  # fmt: skip
_PACKAGE_PROGRAMS = {"apt-get", "apt", "dpkg", "unattended-upgr", "dnf", "yum", "rpm", "zypper"}
_MANIFEST = "/var/lib/crosslogic-installer/install-manifest.json"
_PLACES = (
    "/opt/crosslogic", "/etc/crosslogic", "/var/lib/crosslogic", "/var/lib/crosslogic-agent",
    "/usr/bin/cic",
)  # fmt: skip


def _is_installed(host: Host) -> bool:
    return host.link("/opt/crosslogic/current") is not None


def _rows(host: Host, path: str, name: str) -> list[list[str]]:
    rows = [line.split(":") for line in words(host, path).splitlines()]
    return [row for row in rows if row[0] == name]


@check(
    "system.users",
    looks_at="`crosslogic` and `crosslogic-agent` in `/etc/passwd` and `/etc/group`",
    why="the services run as these accounts; one that belongs to a person would own their secrets",
    fix="getent passwd crosslogic crosslogic-agent; rename or remove the account with that name",
)
def users(host: Host, _: Wanted) -> Verdict:
    taken = []
    for name in ("crosslogic", "crosslogic-agent"):
        for row in _rows(host, "/etc/passwd", name):
            shell = row[6] if len(row) > 6 else ""
            if not shell.endswith(("nologin", "/false")):
                return blocker(f"the account {name} can log in: it is not the service's own")
            taken.append(name)
        taken += [f"group {name}" for _row in _rows(host, "/etc/group", name) if name not in taken]
    if taken and not _is_installed(host):
        return note(f"already there: {', '.join(taken)}; they will be used")
    return ok("the service's own are there" if taken else "the names are free")


@check(
    "system.installed",
    looks_at="the link `/opt/crosslogic/current`",
    why="a version that is installed is upgraded, with its data, and not installed over",
    fix="cic-installer versions; then ./install.sh upgrade",
)
def installed(host: Host, _: Wanted) -> Verdict:
    target = host.link("/opt/crosslogic/current")
    if target is None:
        return ok("no version is installed")
    if host.facts("/opt/crosslogic/current") is None:
        return blocker(
            f"the installed version {target.rpartition('/')[2]} is gone, its link is left",
            "ls -l /opt/crosslogic; put the version's folder back, or remove the link",
        )
    return note(f"version {target.rpartition('/')[2]} is installed")


@check(
    "system.remains",
    looks_at="folders of the appliance without an installation, and its manifest",
    why="what a removed installation left would be taken for this site's own data and secrets",
    fix="look at what is there and move it away; cic-installer uninstall --purge removes it",
)
def remains(host: Host, _: Wanted) -> Verdict:
    if _is_installed(host):
        return ok("they belong to the installed version")
    there = [path for path in _PLACES if host.facts(path) is not None]
    return warning(f"left from before: {', '.join(there)}") if there else ok("nothing is left")


@check(
    "system.unfinished",
    looks_at="`/var/lib/crosslogic-installer/journal.jsonl` and the manifest beside it",
    why="an installation that was cut short is resumed or undone before another begins",
    fix="run ./install.sh again: it resumes or undoes what the journal tells",
)
def unfinished(host: Host, _: Wanted) -> Verdict:
    if host.facts("/var/lib/crosslogic-installer") is None:
        return ok("the installer has left no journal")
    if host.facts("/var/lib/crosslogic-installer/journal.jsonl") and not host.facts(_MANIFEST):
        return note("an installation began and did not end")
    return ok("no installation was cut short")


@check(
    "system.other_installer",
    looks_at="the command lines of `/proc` for another installer that changes the server",
    why="two installers at a time would leave half of each",
    fix="ps -ef | grep installer; wait for the other to end",
)
def other_installer(host: Host, _: Wanted) -> Verdict:
    own = host.own_processes()
    for process in host.names("/proc"):
        if not process.isdigit() or process in own:
            continue
        try:
            line = host.read(f"/proc/{process}/cmdline").split("\0")
        except OSError:
            continue  # it has ended meanwhile, or is hidden
        ours = any(part.endswith("/cic-installer") for part in line[:3]) or any(
            pair == ("-m", "installer") for pair in pairwise(line)
        )
        if ours and _VERBS.intersection(line):
            return blocker(f"another installer runs, process {process}")
    return ok("no other installer runs")


@check(
    "system.packages",
    looks_at="`/proc/locks` for the locks of dpkg and rpm, and their programs among the processes",
    why="packages that change under way can exchange the driver; a .deb or .rpm has to wait for "
    "them",
    fix="ps -C apt-get,dpkg,dnf,rpm,unattended-upgr; wait until it has ended",
)
def packages(host: Host, _: Wanted) -> Verdict:
    held = {
        row.split()[5].rpartition(":")[2]
        for row in words(host, "/proc/locks").splitlines()
        if len(row.split()) > 5 and "->" not in row
    }
    for path in _PACKAGE_LOCKS:
        facts = host.facts(path)
        if facts is not None and str(facts.inode) in held:
            return warning(f"{path} is held: packages are being installed")
    busy = sorted(_PACKAGE_PROGRAMS.intersection(processes(host).values()))
    return warning(f"{', '.join(busy)} runs") if busy else ok("no packages are being installed")


@check(
    "system.units",
    looks_at="unit files of other origin named like the appliance's in `/etc/systemd/system`",
    why="a unit or a drop-in there wins over the one that is installed, and over its hardening",
    fix="systemctl cat crosslogic-gateway; remove what is not wanted, then systemctl daemon-reload",
)
def units(host: Host, _: Wanted) -> Verdict:
    if _is_installed(host):
        return ok("they belong to the installed version")
    try:
        names = host.names("/etc/systemd/system")
    except PermissionError:
        return unknown("run as root to see /etc/systemd/system")
    ours = [name for name in names if name.startswith("crosslogic")]
    return warning(f"already there: {', '.join(ours)}") if ours else ok("the names are free")


CHECKS = (users, installed, remains, unfinished, other_installer, packages, units)
