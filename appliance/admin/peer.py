"""Who is at the other end of the unix socket: the kernel says, so nobody can claim otherwise."""

import pwd
import socket
import struct
from asyncio import BaseTransport
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


class Peer(NamedTuple):
    uid: int
    gid: int


def peer_of(transport: BaseTransport | None) -> Peer | None:
    """None where there is no unix socket."""
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None or peer.family != socket.AF_UNIX:
        return None
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, gid = _UCRED.unpack(credentials)
    return Peer(uid, gid)


def account(uid: int) -> str:
    """`uid:name`, or `uid:` where the host knows no name."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    return f"{uid}:{name}"
