"""Checks of the network: ports, addresses, names, firewall, proxies."""

from __future__ import annotations

import re

from installer.checks.addresses import links_up, listeners, local_ipv4, local_ipv6
from installer.checks.findings import (
    Role,
    Verdict,
    Wanted,
    blocker,
    check,
    note,
    ok,
    unknown,
    warning,
)
from installer.checks.host import Host
from installer.checks.reading import number, processes, words

GATEWAYS = frozenset({Role.GATEWAY, Role.ALL})
ENDPOINT_PORTS = (8080, 8443, 8444)
DOOR_PORT = 8445
"""Where a node lets the gateway in to its engines (docs/NODES.md)."""
MONITORING_PORTS = range(9000, 10000)
BACKLOG_MIN = 1024
MTU_MIN = 1280
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


@check(
    "network.ports",
    looks_at="who listens on TCP 8080 (endpoint), 8443 (endpoint with TLS), 8444 (node API)",
    why="the endpoint cannot open a port that another program has",
    fix="ss -ltnp 'sport = :8080 or sport = :8443 or sport = :8444'; stop it, or set "
    "gateway.listen",
    roles=GATEWAYS,
)
def ports(host: Host, _: Wanted) -> Verdict:
    open_ports = listeners(host)
    taken = []
    for port in ENDPOINT_PORTS:
        if port in open_ports:
            owner = host.socket_owner(open_ports[port])
            taken.append(f"{port} by {owner or 'a program that only root can see'}")
    if not taken:
        return ok("8080, 8443 and 8444 are free")
    if host.link("/opt/crosslogic/current") is not None:
        return note(f"taken: {', '.join(taken)}; a version is installed and may run")
    return blocker(f"taken: {', '.join(taken)}")


@check(
    "network.monitoring_ports",
    looks_at="who listens on TCP 9000 to 9999",
    why="monitoring often listens there; metrics.listen has to name a port that is free",
    fix="ss -ltnp; name a free port in metrics.listen when metrics are to be read over TCP",
)
def monitoring_ports(host: Host, _: Wanted) -> Verdict:
    taken = sorted(port for port in listeners(host) if port in MONITORING_PORTS)
    return note(f"taken: {', '.join(map(str, taken))}") if taken else ok("9000 to 9999 are free")


@check(
    "network.address",
    looks_at="addresses of the host other than loopback and link-local, in `/proc/net`",
    why="clients and nodes reach the endpoint by an address of the LAN",
    fix="ip address; nmcli device status; give the host an address",
)
def address(host: Host, _: Wanted) -> Verdict:
    found = local_ipv4(host) + local_ipv6(host)
    if found:
        return ok(", ".join(found[:3]))
    return warning("only loopback: this machine alone will reach the endpoint")


@check(
    "network.own_name",
    looks_at="what the host's own name resolves to (`getent ahosts`)",
    why="a name that resolves to loopback makes joins and certificates name an address nobody "
    "reaches",
    fix="put the host's LAN address beside its name in /etc/hosts, in place of 127.0.1.1",
)
def own_name(host: Host, _: Wanted) -> Verdict:
    name = words(host, "/proc/sys/kernel/hostname")
    try:
        answer = host.run("getent", "ahosts", name)
    except FileNotFoundError:
        return unknown("getent is not installed", "install libc-bin or glibc-common")
    except TimeoutError:
        return warning("the host's own name takes more than 2.5 s to resolve")
    found = sorted({line.split()[0] for line in answer.out.splitlines() if line.strip()})
    if not found:
        return note("the host's own name does not resolve")
    if all(one == "::1" or one.startswith("127.") for one in found):
        return warning(f"the host's own name resolves to {found[0]} alone")
    return ok(f"resolves to {found[0]}")


@check(
    "network.loopback",
    looks_at="127.0.0.1 on `lo`, and `localhost` in `/etc/hosts`",
    why="gateway, agent and engines of one machine speak over loopback",
    fix="ip link set lo up; echo '127.0.0.1 localhost' >> /etc/hosts",
)
def loopback(host: Host, _: Wanted) -> Verdict:
    if "127.0.0.1" not in words(host, "/proc/net/fib_trie"):
        return blocker("127.0.0.1 is not up")
    for line in words(host, "/etc/hosts").splitlines():
        row = line.partition("#")[0].split()
        if "localhost" in row[1:] and row[0].startswith("127."):
            return ok("localhost is 127.0.0.1")
    return note("/etc/hosts does not name localhost")


@check(
    "network.ipv6",
    looks_at="`net.ipv6.conf.all.disable_ipv6`",
    why="without IPv6 the endpoint listens on IPv4 alone, which is enough",
    fix="nothing is needed; gateway.listen = '[::]:8080' would be refused",
)
def ipv6(host: Host, _: Wanted) -> Verdict:
    off = number(host, "/proc/sys/net/ipv6/conf/all/disable_ipv6", 1)
    return ok("IPv6 is off, which is fine" if off else "IPv6 is on")


@check(
    "network.firewall",
    looks_at="firewalld, ufw and nftables: 8443 and 8444 open on a gateway, 8445 on a node",
    why="clients, nodes and the gateway get no answer through a port that the firewall drops",
    fix="firewall-cmd --permanent --add-port=PORT/tcp && firewall-cmd --reload, or ufw allow "
    "PORT/tcp",
)
def firewall(host: Host, wanted: Wanted) -> Verdict:
    needed = (DOOR_PORT,) if not wanted.is_gateway else ENDPOINT_PORTS[1:]
    if "firewalld" in processes(host).values():
        told = host.run("firewall-cmd", "--list-ports")
        if told.code != 0:
            return unknown("firewalld is active; run as root to see its ports")
        typed = " ".join(f"--add-port={port}/tcp" for port in needed)
        fix = f"firewall-cmd --permanent {typed} && firewall-cmd --reload"
        return _judged("firewalld", [port for port in needed if not _opens(told.out, port)], fix)
    allowed = "; ".join(f"ufw allow {port}/tcp" for port in needed)
    if "ENABLED=yes" in words(host, "/etc/ufw/ufw.conf"):
        told = host.run("ufw", "status")
        if told.code != 0:
            return unknown("ufw is active; run as root to see its rules")
        return _judged("ufw", [port for port in needed if str(port) not in told.out], allowed)
    return _nftables(host, needed)


def _judged(program: str, closed: list[int], fix: str) -> Verdict:
    if not closed:
        return ok(f"{program} is active, and the ports are open")
    return warning(f"{program} is active; closed: {', '.join(map(str, closed))}", fix)


def _opens(listed: str, port: int) -> bool:
    """Whether `443/tcp 8000-9000/tcp` holds the port."""
    return any(
        int(first) <= port <= int(last or first)
        for first, last in re.findall(r"(\d+)(?:-(\d+))?/tcp", listed)
    )


def _nftables(host: Host, needed: tuple[int, ...]) -> Verdict:
    try:
        told = host.run("nft", "list", "ruleset")
    except FileNotFoundError:
        return ok("no firewall is known to be active")
    if told.code != 0:
        return unknown("run as root to see the rules of nftables")
    if not re.search(r"hook input[^}]*policy drop", told.out):
        return ok("nftables drops nothing that is needed")
    named = ", ".join(map(str, needed))
    return _judged(
        "nftables",
        [port for port in needed if str(port) not in told.out],
        f"nft add rule inet filter input tcp dport '{{{named}}}' accept; keep it in "
        "/etc/nftables.conf",
    )


@check(
    "network.proxy",
    looks_at="the names of proxy variables that are set, and whether no_proxy spares the LAN",
    why="clients started here would send calls for the endpoint to the proxy, which cannot reach "
    "it",
    fix="add localhost, 127.0.0.1 and the LAN's addresses to no_proxy in /etc/environment",
)
def proxy(host: Host, _: Wanted) -> Verdict:
    named = sorted(name for name in host.variables() if name.lower() in _PROXIES)
    own = ["127.0.0.1", *local_ipv4(host)]
    if named and not all(host.no_proxy_covers(one) for one in own):
        return warning(f"set: {', '.join(named)}; no_proxy leaves out addresses of this host")
    return ok(f"set: {', '.join(named)}; this host is spared" if named else "no proxy is set")


@check(
    "network.mtu",
    looks_at="`mtu` of the links that are up",
    why="links of different MTU on one LAN lose large packets: streams begin and then stand still",
    fix="ip link; set one MTU for all that share a LAN: ip link set LINK mtu 1500",
)
def mtu(host: Host, _: Wanted) -> Verdict:
    seen = {name: number(host, f"/sys/class/net/{name}/mtu") for name in links_up(host)}
    shown = ", ".join(f"{name} {bytes_}" for name, bytes_ in seen.items())
    if any(bytes_ < MTU_MIN for bytes_ in seen.values()):
        return warning(f"under 1280: {shown}")
    if len(set(seen.values())) > 1:
        return warning(f"different: {shown}")
    return ok(shown or "no link of hardware is up")


@check(
    "network.dns",
    looks_at="name servers in `/etc/resolv.conf`",
    why="none is needed: an air-gapped site works by addresses and /etc/hosts",
    fix="nothing is needed; name this host in the LAN's own DNS, or in the clients' /etc/hosts",
)
def dns(host: Host, _: Wanted) -> Verdict:
    rows = re.findall(r"^nameserver\s+\S+", words(host, "/etc/resolv.conf"), re.MULTILINE)
    return ok(f"{len(rows)} name server(s)" if rows else "no name server, which is fine")


@check(
    "network.route",
    looks_at="a default route in `/proc/net/route`",
    why="none is needed: nothing of the appliance asks for the internet",
    fix="nothing is needed",
)
def route(host: Host, _: Wanted) -> Verdict:
    rows = [line.split() for line in words(host, "/proc/net/route").splitlines()[1:]]
    there = any(len(row) > 7 and row[1] == row[7] == "00000000" for row in rows)
    return ok("there is a default route" if there else "no route out, which is fine")


@check(
    "network.port_range",
    looks_at="`net.ipv4.ip_local_port_range` beside 8080, 8443 and 8444",
    why="a connection going out may take the endpoint's port while it restarts",
    fix="sysctl -w net.ipv4.ip_local_reserved_ports=8080,8443,8444, and keep it in /etc/sysctl.d",
    roles=GATEWAYS,
)
def port_range(host: Host, _: Wanted) -> Verdict:
    told = words(host, "/proc/sys/net/ipv4/ip_local_port_range", "32768 60999").split()
    kept = words(host, "/proc/sys/net/ipv4/ip_local_reserved_ports")
    if int(told[0]) <= max(ENDPOINT_PORTS) and "8443" not in kept:
        return warning(f"connections going out may take ports from {told[0]} on")
    return ok(f"from {told[0]} on")


@check(
    "network.backlog",
    looks_at="`net.core.somaxconn`, at least 1,024",
    why="many clients that connect at one moment are turned away by a short queue",
    fix="sysctl -w net.core.somaxconn=4096, and keep it in /etc/sysctl.d",
    roles=GATEWAYS,
)
def backlog(host: Host, _: Wanted) -> Verdict:
    most = number(host, "/proc/sys/net/core/somaxconn", BACKLOG_MIN)
    return (ok if most >= BACKLOG_MIN else note)(f"{most:,} connections may wait")


CHECKS = (
    ports, monitoring_ports, address, own_name, loopback, ipv6, firewall, proxy, mtu, dns, route,
    port_range, backlog,
)  # fmt: skip
