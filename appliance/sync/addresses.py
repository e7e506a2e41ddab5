"""Where the appliance may go when it leaves the site: the control plane's URL, taken apart.

- https anywhere; http only to a loopback address written as such, for trials and tests.
- No name and password in it, no query: what is configured is shown and logged.
- Link-local, metadata, multicast and unspecified addresses are refused, as written and as the
  name service says: a name that leads there must not hand out a host's credentials.
"""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from appliance.registry.urls import never_an_engine
from appliance.sync.errors import BadControlPlaneUrl

_CHARS_MAX: Final = 2_048
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Address:
    """The control plane's place. `path` is "" or begins with / and does not end with one."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def parse(url: str) -> Address:
    """Raises BadControlPlaneUrl, which does not repeat what was given: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad("It is not understood.") from error
    host = (parts.hostname or "").rstrip(".")
    sound = (
        len(url) <= _CHARS_MAX
        and url.isascii()
        and url.isprintable()
        and " " not in url
        and parts.scheme in _PORTS
        and host
        and port != 0
        and not parts.query
        and not parts.fragment
    )
    if not sound:
        raise _bad("It must be https, a host, perhaps a port and a path.")
    if "@" in parts.netloc:
        raise _bad("It must not hold a name or a password.")
    if never_an_engine(host):
        raise _bad("Link-local, metadata and multicast addresses are refused.")
    if parts.scheme == "http" and not is_loopback(host):
        raise _bad("http is spoken to a loopback address only; anywhere else it must be https.")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def is_loopback(host: str) -> bool:
    """Whether the host is written as an address of this machine, or is `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def acceptable(address: Address, found: list[str]) -> list[str]:
    """Of the addresses that the name service found, those that may be spoken to.

    Raises BadControlPlaneUrl when one of them may not: such an answer is not to be trusted.
    """
    for each in found:
        if never_an_engine(each):
            raise _bad(f"{address.host} leads to {each}: such addresses are refused.")
        if address.scheme == "http" and not is_loopback(each):
            raise _bad(f"{address.host} leads to {each}, and http is for loopback addresses only.")
    return found


def numeric(host: str) -> bool:
    """Whether there is nothing to look up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _bad(why: str) -> BadControlPlaneUrl:
    return BadControlPlaneUrl(
        f"The control plane's URL is not acceptable. {why}",
        next_step="Give it as https://HOST or https://HOST:PORT.",
    )
