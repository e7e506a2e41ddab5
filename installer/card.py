"""The end of an installation on one card: where the endpoint is, whom to trust, what comes next."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from installer.product import Product, ProductRefused


@dataclass(frozen=True, slots=True)
class Card:
    """`key` is shown here once; nothing else keeps it but `key_file`."""

    version: str
    site: str
    endpoint: str
    ca_fingerprint: str
    key: str
    key_file: str
    models: tuple[str, ...]
    running: bool
    notes: tuple[str, ...]
    next_steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What the running site says of itself."""

    endpoint: str = ""
    ca_fingerprint: str = ""
    models: tuple[str, ...] = ()


def ask_site(product: Product, listen: str) -> SiteFacts:
    """Of a site that runs; nothing where it does not. `listen`: the endpoint's, host:port."""
    with contextlib.suppress(ProductRefused):
        status = product.ask("status")
        certificates = product.ask("certificate", "list")
        fingerprints = [one["fingerprint"] for one in certificates if one["kind"] == "site CA"]
        ready = tuple(one["name"] for one in status["deployments"] if one["state"] == "ready")
        return SiteFacts(
            reachable(status["endpoint"], listen, own_address),
            next(iter(fingerprints), None) or "",
            ready,
        )
    return SiteFacts()


def reachable(endpoint: str, listen: str, address: Callable[[], str]) -> str:
    """The endpoint as other hosts write it: a site that listens everywhere tells its loopback."""
    if listen.rpartition(":")[0] not in {"0.0.0.0", "[::]", ""}:  # noqa: S104 (compared, not bound)
        return endpoint
    for here in ("127.0.0.1", "[::1]"):
        endpoint = endpoint.replace(f"//{here}:", f"//{address()}:")
    return endpoint


def own_address() -> str:
    """The address towards the network, else one of the host's, else its name. Sends nothing."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return address_without_route()


def address_without_route() -> str:
    """As on an air-gapped LAN: the first address of an interface that is not loopback."""
    from installer.checks.addresses import local_ipv4, local_ipv6  # noqa: PLC0415 (of 99 checks)
    from installer.checks.real_host import RealHost  # noqa: PLC0415

    host = RealHost()
    found = [*local_ipv4(host), *(f"[{one}]" for one in local_ipv6(host))]
    return found[0] if found else socket.gethostname()


def next_steps(
    card_endpoint: str, models: tuple[str, ...], *, running: bool, systemd: bool
) -> tuple[str, ...]:
    """Three things to do now."""
    if not running:
        begin = "systemctl enable --now crosslogic-gateway" if systemd else "cic serve --with-agent"
        return (
            f"Start it: {begin}",
            "Look at it: cic status, and cic console",
            "Copy the key of its backups away from this server: cic backup key --to FILE",
        )
    ask = (
        f'Ask it: curl {card_endpoint}/chat/completions -H "Authorization: Bearer KEY" -H '
        f'"Content-Type: application/json" -d \'{{"model": "{models[0]}", "messages": '
        '[{"role": "user", "content": "Hello"}]}}\''.replace("}}'", "}'")
        if models
        else "Bring a model: cic model import FILE; cic deployment create --name NAME --engine "
        "llamacpp --model MODEL --wait"
    )
    return (
        ask,
        "Look at it: cic status, and cic console",
        "Copy the key of its backups away from this server: cic backup key --to FILE",
    )


def as_json(card: Card) -> dict[str, Any]:
    """Without the key where a file has it: what is printed is often kept."""
    return {**asdict(card), "key": "" if card.key_file else card.key}


def as_text(card: Card) -> str:
    rows = [
        ("version", card.version),
        ("site", card.site),
        ("endpoint", card.endpoint or "not started"),
        ("site CA", f"SHA-256 {card.ca_fingerprint}" if card.ca_fingerprint else ""),
        ("models", ", ".join(card.models)),
        ("key", f"{card.key}   (shown this once)" if card.key and not card.key_file else ""),
        ("key file", card.key_file if card.key else ""),
    ]
    lines = ["", "The appliance is installed.", ""]
    lines += [f"  {name:<10}{value}" for name, value in rows if value]
    if card.notes:
        lines += ["", "To know:", *(f"  - {note}" for note in card.notes)]
    lines += ["", "Next:", *(f"  {n}. {step}" for n, step in enumerate(card.next_steps, 1))]
    return "\n".join(lines)
