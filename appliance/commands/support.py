"""`cic support`: what helps others to help, in one file without a secret."""

import gzip
import io
import os
import platform
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from appliance.commands.client import AdminClient
from appliance.commands.context import absolute, require_site
from appliance.commands.output import Column, print_fields, print_json, print_rows, progress
from appliance.domain.clock import SystemClock, iso
from appliance.security.redaction import Redactor
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import Home

_TIMEOUT_S: Final = 120.0
_SECRET_BYTES_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Collector:
    """One file of the bundle. `ask` is a path of the admin API; else `make` tells of this host."""

    name: str
    what: str
    ask: str = ""
    lines: bool = False
    make: Callable[[Home], str] | None = None


def _host(home: Home) -> str:
    """The machine, without its environment: variables may hold anything."""
    facts: dict[str, Any] = {
        "system": " ".join(platform.uname()),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
    }
    with suppress(OSError):
        facts["load"] = os.getloadavg()
    for name in ("/proc/meminfo", "/etc/os-release", "/proc/driver/nvidia/version"):
        with suppress(OSError, UnicodeDecodeError):
            facts[name] = Path(name).read_text(encoding="utf-8")[:4_096].splitlines()
    with suppress(OSError):
        facts["disk"] = shutil.disk_usage(home.state)._asdict()
    return msgspec.json.format(msgspec.json.encode(facts), indent=2).decode()


def _files(home: Home) -> str:
    """Names, sizes and modes of the home's files; contents of none."""
    rows = []
    for folder in sorted({home.config, home.state, home.run, home.logs}):
        for path in sorted(folder.rglob("*"))[:5_000] if folder.is_dir() else ():
            with suppress(OSError):
                told = path.lstat()
                name = path.relative_to(folder)
                rows.append(f"{told.st_mode:o} {told.st_uid} {told.st_size:>14,} {folder}: {name}")
    return "\n".join(dict.fromkeys(rows)) + "\n"


COLLECTORS: Final = (
    Collector("status.json", "the site, its deployments and nodes", "/v1/status"),
    Collector("settings.json", "settings with their sources; no secrets", "/v1/settings"),
    Collector("checks.ndjson", "the health checks, run now", "/v1/checks", lines=True),
    Collector("alerts.json", "what wants attention", "/v1/alerts"),
    Collector("events.ndjson", "what happened", "/v1/events", lines=True),
    Collector("log.ndjson", "the last 5,000 lines of the log", "/v1/logs?lines=5000", lines=True),
    Collector("metrics.txt", "figures of now", "/metrics", lines=True),
    Collector("history.json", "figures of the last day", "/v1/history?span=24h"),
    Collector("nodes.json", "nodes and their health", "/v1/nodes"),
    Collector("gpus.json", "GPUs as their drivers tell", "/v1/gpus"),
    Collector("deployments.json", "deployments and replicas", "/v1/deployments"),
    Collector("models.json", "models, their digests and licences", "/v1/models"),
    Collector("certificates.json", "certificates, without keys", "/v1/certificates"),
    Collector("backups.json", "backups by name", "/v1/backups"),
    Collector("sync.json", "the control plane and the entitlement", "/v1/sync"),
    Collector("audit.json", "whether the audit's chain is whole", "/v1/audit/verify"),
    Collector("ledger.json", "whether the ledger's chain is whole", "/v1/ledger/verify"),
    Collector("host.json", "this machine: kernel, memory, disk; no environment", make=_host),
    Collector("files.txt", "names, sizes and modes of the home's files", make=_files),
)


@click.group()
def support() -> None:
    """What helps others to help: one file, chosen piece by piece, without a secret."""


@support.command("list")
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List what a bundle would hold. Nothing else is ever in it."""
    if invocation.json:
        print_json([{"name": each.name, "what": each.what} for each in COLLECTORS])
        return
    columns: list[Column[Collector]] = [
        Column("FILE", lambda row: row.name),
        Column("WHAT", lambda row: row.what),
    ]
    print_rows(COLLECTORS, columns, "")


@support.command("create")
@click.option("--to", metavar="FILE", help="Default: support-<time>.tar.gz in this folder.")
@click.pass_obj
def create(invocation: Invocation, to: str | None) -> None:
    """Collect it into FILE, redacted. It stays on this machine until somebody carries it.

    What an appliance that does not run cannot tell is left out, and said so inside.
    """
    home = invocation.home
    require_site(home)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = Path(absolute(to or f"support-{stamp}.tar.gz"))
    redactor = Redactor(_own_secrets(home))
    with progress("Collecting") as tell:
        content, missing = _collected(home, redactor, tell)
    _write(path, content)
    told = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "files": len(COLLECTORS) - len(missing),
        "left_out": missing,
        "redacted": redactor.count,
    }
    if invocation.json:
        print_json(told)
    else:
        print_fields(told.items())
        click.echo("Look inside before it leaves: `tar tzf`, and every file is text.", err=True)


def _collected(
    home: Home, redactor: Redactor, tell: Callable[[str], None]
) -> tuple[bytes, list[str]]:
    texts: list[tuple[str, str]] = []
    missing: list[str] = []
    for each in COLLECTORS:
        tell(each.what)
        try:
            text = each.make(home) if each.make is not None else _asked(home, each)
        except CommandError as error:
            missing.append(each.name)
            text = f"left out: {error.message}\n"
        texts.append((each.name, redactor.clean(text)))
    index = [f"Made {iso(SystemClock().wall_ns())}. Everything went through one redactor.", ""]
    index += [f"{each.name:<20} {each.what}" for each in COLLECTORS]
    if missing:
        index += ["", f"Left out, see inside: {', '.join(missing)}"]
    return _archive([("README.txt", "\n".join(index) + "\n"), *texts]), missing


def _asked(home: Home, each: Collector) -> str:
    with AdminClient(home, timeout_s=_TIMEOUT_S) as client:
        if each.lines:
            return "".join(line.decode(errors="replace") + "\n" for line in client.lines(each.ask))
        answer = client.get(each.ask, msgspec.Raw)
    return msgspec.json.format(bytes(answer), indent=2).decode() + "\n"


def _archive(texts: Sequence[tuple[str, str]]) -> bytes:
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, text in texts:
            content = text.encode()
            info = tarfile.TarInfo(f"support/{name}")
            info.size, info.mode = len(content), 0o600
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _own_secrets(home: Home) -> Iterator[bytes]:
    """The very values of this site's secrets, where this account may read them."""
    with suppress(OSError):
        for path in sorted(home.secrets.iterdir()):
            with suppress(OSError):
                if path.is_file() and path.suffix != ".pem":
                    content = path.read_bytes()[:_SECRET_BYTES_MAX]
                    yield content
                    # The lines of a PEM are its secret, too.
                    yield from (line for line in content.split(b"\n") if len(line) >= 32)


def _write(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}.",
            next_step="Name a new file in a folder that you may write: --to FILE.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error
