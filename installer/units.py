"""Unit files of systemd: laid down, and enabled by the links that `systemctl enable` would make."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from installer.errors import StepFailed
from installer.layout import Layout
from installer.making import Maker
from installer.records import Manifest


def unit_files(folder: Path) -> list[Path]:
    """Units and drop-ins of a version; none when it has no such folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def lay_units(make: Maker, layout: Layout, folder: Path) -> list[str]:
    """Puts a version's units in place; returns those that somebody changed, which stay."""
    kept = []
    for file in unit_files(folder):
        target = layout.units / file.relative_to(folder)
        if not make.file(target, file.read_bytes(), 0o644):
            kept.append(str(target))
    return kept


def listen_elsewhere(make: Maker, layout: Layout, folder: Path, listen: str) -> None:
    """Has systemd hold the endpoint's socket where the answers want it. `listen`: host:port."""
    unit = folder / "crosslogic-gateway.socket"
    if not unit.is_file() or f"\nListenStream={listen}\n" in unit.read_text():
        return
    host, _, port = listen.rpartition(":")
    address = f"{numeric(host)}:{port}"
    drop_in = layout.root / "etc/systemd/system/crosslogic-gateway.socket.d/10-listen.conf"
    make.file(drop_in, f"[Socket]\nListenStream=\nListenStream={address}\n".encode(), 0o644)


def numeric(host: str) -> str:
    """systemd takes addresses alone. Raises StepFailed for a name that nobody knows."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        try:
            return socket.gethostbyname(host)
        except OSError as error:
            raise StepFailed(
                f"The endpoint cannot listen on {host}: nobody knows this name here.",
                next_step='Write the address into the answers, as listen = "10.0.0.5:8080".',
            ) from error
    return host


def enable(make: Maker, layout: Layout, folder: Path, units: tuple[str, ...]) -> None:
    """Has them start at boot: also in a system that does not run."""
    for unit in units:
        for target in wanted_by((folder / unit).read_text()):
            link = layout.root / "etc/systemd/system" / f"{target}.wants" / unit
            make.link(link, layout.inside(layout.units / unit))


def wanted_by(unit: str) -> list[str]:
    """Targets of the section [Install]."""
    section, found = "", []
    for line in unit.splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text
        elif section == "[Install]" and text.startswith("WantedBy="):
            found += text.partition("=")[2].split()
    return found


def drop_missing_units(layout: Layout, manifest: Manifest, folder: Path) -> None:
    """Removes units of another version that this one does not have, and what enabled them."""
    now = {layout.inside(layout.units / file.relative_to(folder)) for file in unit_files(folder)}
    units = layout.inside(layout.units) + "/"
    gone = {name for name in manifest.made if name.startswith(units) and name not in now}
    enabled = [
        n for n, made in manifest.made.items() if made.kind == "link" and made.target in gone
    ]
    for name in [*gone, *enabled]:
        if manifest.made[name].kind in {"file", "link"}:
            layout.outside(name).unlink(missing_ok=True)
            del manifest.made[name]
    if gone:
        manifest.save()
