"""What the kernel tells of its network: addresses, links, listeners. Read from files alone."""

from __future__ import annotations

import ipaddress
import re

from installer.checks.host import Host
from installer.checks.reading import words

_LISTEN = "0A"


def local_ipv4(host: Host) -> list[str]:
    """The host's own IPv4 addresses without loopback and link-local ones."""
    found: list[str] = []
    address = ""
    for line in words(host, "/proc/net/fib_trie").splitlines():
        if leaf := re.search(r"\|-- ([0-9.]+)", line):
            address = leaf[1]
        elif "/32 host LOCAL" in line and address not in found:
            found.append(address)
    return [one for one in found if _is_of_a_lan(one)]


def local_ipv6(host: Host) -> list[str]:
    """The host's own IPv6 addresses without loopback and link-local ones."""
    rows = [line.split() for line in words(host, "/proc/net/if_inet6").splitlines()]
    found = [str(ipaddress.IPv6Address(bytes.fromhex(row[0]))) for row in rows if row]
    return [one for one in found if _is_of_a_lan(one)]


def _is_of_a_lan(address: str) -> bool:
    told = ipaddress.ip_address(address)
    return not (told.is_loopback or told.is_link_local)


def links_up(host: Host) -> list[str]:
    """Links that carry traffic, of hardware: none of containers, bridges or tunnels."""
    return [
        name
        for name in host.names("/sys/class/net")
        if words(host, f"/sys/class/net/{name}/operstate") == "up"
        and host.facts(f"/sys/class/net/{name}/device") is not None
    ]


def listeners(host: Host) -> dict[int, int]:
    """TCP ports that are listened on, each with the inode of a socket; loopback counts too."""
    found: dict[int, int] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in words(host, path).splitlines()[1:]:
            row = line.split()
            if len(row) > 9 and row[3] == _LISTEN:
                found.setdefault(int(row[1].rpartition(":")[2], 16), int(row[9]))
    return found
