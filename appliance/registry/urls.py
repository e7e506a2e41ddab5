"""Base URLs of external engines."""

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from appliance.registry.errors import InvalidValue

URL_CHARS_MAX: Final = 2_048

# Where clouds tell a machine its credentials. Most are link-local, which is refused as a whole;
# these are not. Sources: the documentation of AWS (IPv6), Alibaba Cloud, Oracle and Google Cloud.
_METADATA_ADDRESSES: Final = frozenset({"fd00:ec2::254", "100.100.100.200", "192.0.0.192"})
_METADATA_NAMES: Final = frozenset({"metadata", "metadata.google.internal", "metadata.goog"})
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def check_url(url: str) -> None:
    """Raise InvalidValue unless it is http or https, a host, perhaps a port and a path.

    Credentials are refused: they would lie in the registry and its audit in plain text. What was
    given is not repeated in the error for the same reason.

    Link-local and metadata addresses are refused: nothing an administrator serves models from is
    there, and whoever can ask through the gateway must not reach the host's credentials.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    sound = (
        len(url) <= URL_CHARS_MAX
        and url.isascii()
        and url.isprintable()
        and " " not in url
        and parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and port != 0
        and not parts.query
        and not parts.fragment
    )
    if not sound:
        raise InvalidValue(
            "The URL of an external engine is not acceptable.",
            next_step="Give it as http://HOST:PORT or https://HOST/PATH, without a query.",
        )
    if "@" in parts.netloc:
        raise InvalidValue(
            "The URL of an external engine must not hold a name or a password.",
            next_step="Give the secret as the API key: it is sealed there.",
        )
    if parts.hostname is not None and never_an_engine(parts.hostname):
        raise InvalidValue(
            "The URL of an external engine must not be a link-local, metadata or multicast"
            " address.",
            next_step="Give the address at which the engine listens on your network.",
        )


def never_an_engine(host: str) -> bool:
    """Whether a host as it is written is an address that holds no engine. Names are not looked up.

    The system also takes IPv4 in one number, in hexadecimal and in octal, so these are read too.
    """
    if host.rstrip(".").lower() in _METADATA_NAMES:
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return False
    if isinstance(address, ipaddress.IPv6Address):
        address = _embedded(address)
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or str(address).partition("%")[0] in _METADATA_ADDRESSES
    )


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4 or NAT64), or itself."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
