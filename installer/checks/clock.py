"""Checks of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from installer.checks.findings import Verdict, Wanted, blocker, check, note, ok, unknown, warning
from installer.checks.host import Host
from installer.checks.reading import processes, words

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that is right shows a date before the first version's."""
EARLY_MAX = timedelta(days=1)
LATE_MAX = timedelta(days=3650)
RTC_APART_MAX_S = 120
_DAEMONS = {"chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys", "vmtoolsd"}
_FAST = {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}


@check(
    "time.plausible",
    looks_at="the clock beside the date this program was built",
    why="certificates, ledger and entitlement carry the date; a wrong one makes them invalid",
    fix="date; timedatectl set-time 'YYYY-MM-DD HH:MM:SS'; hwclock --systohc",
)
def plausible(host: Host, wanted: Wanted) -> Verdict:
    now = host.now()
    shown = now.strftime("%Y-%m-%d %H:%M UTC")
    if now < EARLIEST:
        return blocker(f"{shown}, which is before this program was written")
    if wanted.built_at is None:
        return unknown(f"{shown}; the build's date is not known", "date; compare it with a watch")
    if now < wanted.built_at - EARLY_MAX:
        return blocker(f"{shown}, which is before this program was built")
    if now > wanted.built_at + LATE_MAX:
        return blocker(f"{shown}, more than ten years after this program was built")
    return ok(shown)


@check(
    "time.synchronised",
    looks_at="a daemon that keeps the clock (chronyd, ntpd, timesyncd, ptp4l), and its state",
    why="a clock that drifts parts nodes from the gateway; air-gapped sites need a clock of "
    "their own",
    fix="name the LAN's time server in /etc/chrony.conf; systemctl enable --now chronyd",
)
def synchronised(host: Host, _: Wanted) -> Verdict:
    runs = sorted(_DAEMONS.intersection(processes(host).values()))
    if not runs:
        return note("nobody keeps the clock")
    try:
        told = host.run("timedatectl", "show", "--property=NTPSynchronized", "--value").out.strip()
    except FileNotFoundError:
        told = ""
    if told == "no":
        return warning(f"{runs[0]} runs and has no time server that answers", "chronyc sources")
    return ok(f"{runs[0]} keeps the clock")


@check(
    "time.zone",
    looks_at="`/etc/localtime`",
    why="logs and reports for people are shown in the server's zone; a broken link makes that UTC",
    fix="timedatectl set-timezone Europe/Berlin",
)
def zone(host: Host, _: Wanted) -> Verdict:
    target = host.link("/etc/localtime")
    if target is not None and host.facts("/etc/localtime") is None:
        return warning("/etc/localtime points to a zone that is not installed")
    return ok(target.partition("zoneinfo/")[2] or "set" if target else "UTC, or a file of its own")


@check(
    "time.rtc",
    looks_at="`/sys/class/rtc/rtc0/since_epoch` beside the clock",
    why="after a power cut the server begins with the time of this clock",
    fix="hwclock --systohc --utc; timedatectl set-local-rtc 0",
)
def rtc(host: Host, _: Wanted) -> Verdict:
    told = words(host, "/sys/class/rtc/rtc0/since_epoch")
    if not told.isdigit():
        return note("there is no clock that outlasts a power cut", "date, after each boot")
    apart = abs(int(told) - host.now().timestamp())
    if apart > RTC_APART_MAX_S:
        return warning(f"{apart:,.0f} s apart from the system's clock")
    return ok("agrees with the system's clock")


@check(
    "time.source",
    looks_at="`current_clocksource`",
    why="reading the time from hpet or acpi_pm is many times slower, and every request asks for it",
    fix="add clocksource=tsc tsc=reliable to the kernel's command line when the processor is sound",
)
def source(host: Host, _: Wanted) -> Verdict:
    told = words(host, "/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return ok(told or "not told") if told in _FAST or not told else note(f"{told}, a slow one")


CHECKS = (plausible, synchronised, zone, rtc, source)
