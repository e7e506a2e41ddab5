"""Under which address the nodes of a site reach this host."""

import ipaddress
import socket
from pathlib import Path
from typing import Final

# A documentation address (RFC 5737): nothing is sent to it, the kernel only says by which way it
# would go. It stands for "anywhere".
_ANYWHERE: Final = ("192.0.2.1", 9)
_ANYWHERE_V6: Final = ("2001:db8::1", 9)


def own_address() -> str | None:
    """This host's address on its network; None: it has none but the loopback's."""
    for family, target in ((socket.AF_INET, _ANYWHERE), (socket.AF_INET6, _ANYWHERE_V6)):
        found = _towards(family, target)
        if found is not None and reachable(found):
            return found
    return _of_interfaces()


def reachable(host: str) -> bool:
    """Whether others could reach this host under that name or address."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    return not (
        address.is_loopback
        or address.is_unspecified
        or address.is_link_local
        or address.is_multicast
    )


def split_address(text: str) -> tuple[str, int | None]:
    """HOST, HOST:PORT, [V6]:PORT or a bare V6 address. Raises ValueError."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        ipaddress.IPv6Address(host)
        if rest and not rest.startswith(":"):
            raise ValueError("write [ADDRESS]:PORT")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") > 1:
        return str(ipaddress.IPv6Address(text)), None
    host, colon, port = text.partition(":")
    if not host or any(c.isspace() or c in "/@?#%" for c in host):
        raise ValueError("write HOST or HOST:PORT")
    return host, _port(port) if colon else None


def joined(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise ValueError(f"{text!r} is no port")
    return int(text)


def _towards(family: int, target: tuple[str, int]) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # sends nothing: it is a datagram socket
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _of_interfaces() -> str | None:
    """A host without a default route: the first address that one of its interfaces has."""
    try:
        lines = Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    previous = ""
    for line in lines:
        text = line.strip()
        if text.startswith("/32 host LOCAL"):
            address = previous.rpartition(" ")[2]
            if reachable(address):
                return address
        previous = text
    return None
