"""Who is at the other end of the unix socket: the kernel says, so nobody can claim otherwise."""

import pwd
import socket
import struct
from asyncio import BaseTransport
from typing import Final

_UCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


def actor(transport: BaseTransport | None) -> str:
    """`uid:name` of the peer, as the audit records it; "unknown" where there is no unix socket.

    A uid that has no account on this host gives `uid:`.
    """
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None or peer.family != socket.AF_UNIX:
        return "unknown"
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(credentials)
    return account(uid)


def account(uid: int) -> str:
    """`uid:name`, or `uid:` where the host knows no name."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    return f"{uid}:{name}"
