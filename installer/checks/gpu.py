"""Checks of the GPUs themselves: what they say through their driver, and the kernel of them."""

from __future__ import annotations

import re

from installer.checks.driver import NODES
from installer.checks.findings import Verdict, Wanted, blocker, check, note, ok, unknown, warning
from installer.checks.host import Host, Output
from installer.checks.pci import attribute, hardware, module_version
from installer.checks.reading import version, words

_FIELDS = (
    "index", "ecc.mode.current", "ecc.errors.uncorrected.volatile.total", "mig.mode.current",
    "compute_mode", "compute_cap", "temperature.gpu",
)  # fmt: skip
QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
PROCESSES = ("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader")
KERNEL_LOG = ("dmesg", "--notime")
CAPABILITY_MIN = (7, 0)
TEMPERATURE_IDLE_MAX = 80
# Errors after which a GPU is not to be trusted: NVIDIA, "XID Errors".
_GRAVE_XIDS = {48, 61, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120, 136, 140, 143, 154, 158, 171, 172}
_NOTHING = ok("no driver is loaded, nothing to ask")


def _rows(host: Host) -> list[dict[str, str]] | None:
    """What nvidia-smi tells of each GPU; None without a driver or the program."""
    if not module_version(host):
        return None
    try:
        answer = host.run(*QUERY)
    except FileNotFoundError:
        return None
    if answer.code != 0:
        return None  # told by gpu.answers
    rows = [[part.strip() for part in line.split(",")] for line in answer.out.splitlines()]
    return [dict(zip(_FIELDS, row, strict=True)) for row in rows if len(row) == len(_FIELDS)]


def _named(rows: list[dict[str, str]]) -> str:
    return ", ".join(row["index"] for row in rows)


@check(
    "gpu.answers",
    looks_at="`nvidia-smi`: whether it answers, and with as many GPUs as the bus shows",
    why="a GPU in trouble makes the driver hang, or falls off the bus and is missing",
    fix="journalctl -k -g 'NVRM|Xid'; reboot; a GPU that stays away goes to its vendor",
    roles=NODES,
)
def answers(host: Host, _: Wanted) -> Verdict:
    if not module_version(host):
        return _NOTHING
    try:
        answer = host.run(*QUERY)
    except FileNotFoundError:
        return note("nvidia-smi is not installed", "apt-get install nvidia-utils-570-server")
    if answer.code != 0:
        if "version mismatch" in answer.out + answer.err:
            return note(
                "nvidia-smi fails by two versions: see gpu.mismatch", "mend gpu.mismatch first"
            )
        return blocker(f"nvidia-smi ends with {answer.code}")
    told, shown = len(answer.out.splitlines()), len(hardware(host).nvidia)
    if told < shown:
        return warning(f"{told} of {shown} GPUs answer")
    return ok(f"{told} GPU(s) answer")


@check(
    "gpu.ecc_errors",
    looks_at="uncorrected ECC errors since the driver was loaded, by `nvidia-smi`",
    why="memory that lost data ends engines, or makes them answer nonsense",
    fix="nvidia-smi -q -d ECC,ROW_REMAPPER; reset the GPU or reboot; exchange it when it comes "
    "again",
    roles=NODES,
)
def ecc_errors(host: Host, _: Wanted) -> Verdict:
    rows = _rows(host)
    if rows is None:
        return _NOTHING
    bad = [
        row
        for row in rows
        if (count := row["ecc.errors.uncorrected.volatile.total"]).isdigit() and int(count) > 0
    ]
    return warning(f"uncorrected ECC errors on GPU {_named(bad)}") if bad else ok("none")


@check(
    "gpu.ecc_mode",
    looks_at="whether ECC is on where the GPU has it",
    why="without ECC a flipped bit in the weights is not noticed",
    fix="nvidia-smi -e 1; reboot",
    roles=NODES,
)
def ecc_mode(host: Host, _: Wanted) -> Verdict:
    off = [row for row in _rows(host) or [] if row["ecc.mode.current"] == "Disabled"]
    return note(f"ECC is off on GPU {_named(off)}") if off else ok("ECC is on, or not offered")


@check(
    "gpu.mig",
    looks_at="MIG mode, by `nvidia-smi`",
    why="a GPU in slices is used by its slices; a model that needs the whole GPU finds no place",
    fix="nvidia-smi -i GPU -mig 0, unless the slices are meant",
    roles=NODES,
)
def mig(host: Host, _: Wanted) -> Verdict:
    sliced = [row for row in _rows(host) or [] if row["mig.mode.current"] == "Enabled"]
    return note(f"MIG is on for GPU {_named(sliced)}") if sliced else ok("MIG is off")


@check(
    "gpu.compute_mode",
    looks_at="compute mode, Default",
    why="a GPU in mode Prohibited runs no engine, one in mode Exclusive_Process a single process",
    fix="nvidia-smi -c DEFAULT",
    roles=NODES,
)
def compute_mode(host: Host, _: Wanted) -> Verdict:
    rows = _rows(host) or []
    if shut := [row for row in rows if row["compute_mode"] == "Prohibited"]:
        return blocker(f"compute is prohibited on GPU {_named(shut)}")
    alone = [row for row in rows if row["compute_mode"].startswith("Exclusive")]
    return warning(f"one process at a time on GPU {_named(alone)}") if alone else ok("Default")


@check(
    "gpu.capability",
    looks_at="compute capability, at least 7.0",
    why="vLLM has no kernels for older GPUs; llama.cpp runs there, slowly",
    fix="use GPUs of the generation Volta or later for vLLM",
    roles=NODES,
)
def capability(host: Host, _: Wanted) -> Verdict:
    old = [
        row
        for row in _rows(host) or []
        if (told := version(row["compute_cap"])) and told < CAPABILITY_MIN
    ]
    return warning(f"older than 7.0: GPU {_named(old)}") if old else ok("7.0 or later, or no GPU")


@check(
    "gpu.temperature",
    looks_at="temperature now, under 80 °C",
    why="a GPU that is hot before any work slows down as soon as there is some",
    fix="look at fans, filters and the air of the room; nvidia-smi -q -d TEMPERATURE",
    roles=NODES,
)
def temperature(host: Host, _: Wanted) -> Verdict:
    hot = [
        row
        for row in _rows(host) or []
        if row["temperature.gpu"].isdigit() and int(row["temperature.gpu"]) >= TEMPERATURE_IDLE_MAX
    ]
    return warning(f"80 °C or more on GPU {_named(hot)}") if hot else ok("under 80 °C, or no GPU")


@check(
    "gpu.busy",
    looks_at="the processes that compute on the GPUs, by `nvidia-smi`",
    why="memory that others hold is not there for engines; placement counts on the whole GPU",
    fix="nvidia-smi --query-compute-apps=pid,process_name --format=csv; end what is not wanted",
    roles=NODES,
)
def busy(host: Host, _: Wanted) -> Verdict:
    if _rows(host) is None:
        return _NOTHING
    lines = [line for line in host.run(*PROCESSES).out.splitlines() if "," in line]
    if not lines:
        return ok("nobody computes on the GPUs")
    # The program's own name alone: a command line may hold more than is to be shown.
    names = sorted(
        {line.partition(",")[2].strip().split(" ")[0].rpartition("/")[2] for line in lines}
    )
    shown = f"{len(lines)} process(es) on the GPUs: {', '.join(names)[:60]}"
    if host.link("/opt/crosslogic/current") is not None:
        return note(f"{shown}; the installed version's engines may be among them")
    return warning(shown)


@check(
    "gpu.xid",
    looks_at="the kernel's log (`dmesg`) for grave Xids",
    why="the driver has reported a fault of a GPU since the server was booted",
    fix="journalctl -k -g Xid; docs/GPUS.md tells what each number means; reset the GPU or reboot",
    roles=NODES,
)
def xid(host: Host, _: Wanted) -> Verdict:
    if not hardware(host).nvidia:
        return ok("no NVIDIA GPU: nothing to see")
    log = kernel_log(host)
    if log is None or log.code != 0:
        return unknown("run as root to see the kernel's log")
    found = {int(number) for number in re.findall(r"NVRM: Xid \([^)]*\): (\d+)", log.out)}
    if grave := sorted(found & _GRAVE_XIDS):
        return warning(f"Xid {', '.join(map(str, grave))} since the boot")
    return ok("no grave Xid since the boot")


@check(
    "gpu.link",
    looks_at="`current_link_width` beside `max_link_width` of each GPU",
    why="a GPU with fewer PCIe lanes than it has loads models slower; often it sits badly in its "
    "slot",
    fix="lspci -vv | grep -E 'LnkCap|LnkSta'; seat the card again, look at the slot and its riser",
    roles=NODES,
)
def link(host: Host, _: Wanted) -> Verdict:
    narrow = []
    for gpu in hardware(host).nvidia:
        now, most = (attribute(host, gpu, f"{when}_link_width") for when in ("current", "max"))
        if now.isdigit() and most.isdigit() and 0 < int(now) < int(most):
            narrow.append(f"{gpu} x{now} of x{most}")
    return warning(f"fewer lanes: {', '.join(narrow)}") if narrow else ok("all lanes, or no GPU")


@check(
    "gpu.iommu",
    looks_at="`/proc/cmdline` and `/sys/class/iommu` on machines with several GPUs",
    why="an IOMMU that translates, and PCIe ACS, send traffic between GPUs through the processor",
    fix="add iommu=pt to the kernel's command line; on bare metal turn ACS off in the firmware; "
    "reboot",
    roles=NODES,
)
def iommu(host: Host, _: Wanted) -> Verdict:
    if len(hardware(host).nvidia) < 2 or not host.names("/sys/class/iommu"):
        return ok("fewer than two GPUs, or no IOMMU")
    told = words(host, "/proc/cmdline").split()
    if "iommu=pt" in told or "iommu.passthrough=1" in told:
        return ok("the IOMMU passes through")
    return note("the IOMMU may translate between the GPUs")


def kernel_log(host: Host) -> Output | None:
    """The kernel's log; None where the program is not there."""
    try:
        return host.run(*KERNEL_LOG)
    except FileNotFoundError:
        return None


CHECKS = (
    answers, ecc_errors, ecc_mode, mig, compute_mode, capability, temperature, busy, xid, link,
    iommu,
)  # fmt: skip
