"""Which role an account of this host has, and the refusal of those who have too little of it."""

import asyncio
import grp
import os
import pwd
from asyncio import BaseTransport
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from appliance.admin.errors import NotPermittedRole
from appliance.admin.peer import Peer, account, peer_of
from appliance.domain.clock import Clock
from appliance.registry.registry import Registry
from appliance.settings import Access
from appliance.wire.access import ACCESS_ROLES, AccessRole, reaches

# How long a change of groups may take to be seen; a directory service is not asked for each call.
_GROUPS_S: Final = 5.0
_TOLD_AGAIN_S: Final = 3_600.0
_ACCOUNTS_MAX: Final = 1_024  # remembered at once

K = TypeVar("K")
V = TypeVar("V")

GroupsOf = Callable[[Peer], frozenset[str]]
# Writes a refusal into the audit: who, of which role or "", and what was refused.
Refused = Callable[[str, str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, with all that decides what it may do."""

    actor: str  # `uid:name`
    role: AccessRole | None  # None: in none of the groups that the settings name
    groups: tuple[str, ...] = ()


class Roles:
    """Decides for each call. `own_uid` is the account that serves the site."""

    def __init__(
        self,
        settings: Access,
        clock: Clock,
        refused: Refused,
        *,
        own_uid: int | None = None,
        groups_of: GroupsOf | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._refused = refused
        self._own_uid = os.geteuid() if own_uid is None else own_uid
        self._groups_of = groups_of or host_groups
        self._groups: dict[Peer, tuple[float, frozenset[str]]] = {}
        self._told: dict[str, float] = {}

    def adopt(self, settings: Access) -> None:
        """Use another mapping from the next call on."""
        self._settings = settings

    @property
    def mapped(self) -> bool:
        return is_mapped(self._settings)

    async def caller(self, transport: BaseTransport | None) -> Caller:
        """Who asks. Groups are looked up in a thread: a directory service may be slow."""
        peer = peer_of(transport)
        if peer is None:
            return Caller("unknown", None if self.mapped else "admin")
        groups = await self._groups_now(peer)
        role = role_of(peer.uid, groups, self._settings, self._own_uid)
        return Caller(account(peer.uid), role, tuple(sorted(groups)))

    async def demand(self, caller: Caller, needed: AccessRole, doing: str) -> AccessRole:
        """The caller's role. Raises NotPermittedRole when it is less than `needed`."""
        role = caller.role
        if role is not None and reaches(role, needed):
            return role
        now_s = self._clock.monotonic_s()
        if now_s - self._told.get(caller.actor, -_TOLD_AGAIN_S) >= _TOLD_AGAIN_S:
            _bound(self._told)
            self._told[caller.actor] = now_s
            await self._refused(caller.actor, role or "", doing)
        raise refusal(caller, needed, self._settings)

    async def _groups_now(self, peer: Peer) -> frozenset[str]:
        now_s = self._clock.monotonic_s()
        known = self._groups.get(peer)
        if known is not None and now_s - known[0] < _GROUPS_S:
            return known[1]
        groups = await asyncio.to_thread(self._groups_of, peer)
        _bound(self._groups)
        self._groups[peer] = (now_s, groups)
        return groups


def audited_refusals(registry: Registry) -> Refused:
    """Writes a refusal into the audit of this registry."""

    async def write(actor: str, role: str, doing: str) -> None:
        what = {"role": role or None, "refused": doing}
        await registry.audit.note(actor, "refuse", "access", actor, doing, what)

    return write


def is_mapped(settings: Access) -> bool:
    return bool(settings.viewers or settings.operators or settings.admins)


def role_of(uid: int, groups: frozenset[str], settings: Access, own_uid: int) -> AccessRole | None:
    """The highest role of any group. root and the account that serves are always admins.

    Without a mapping, who could open the socket is an admin: its mode says who can.
    """
    if uid in {0, own_uid} or not is_mapped(settings):
        return "admin"
    for role in reversed(ACCESS_ROLES):
        if not groups.isdisjoint(_groups_for(role, settings)):
            return role
    return None


def refusal(caller: Caller, needed: AccessRole, settings: Access) -> NotPermittedRole:
    """Says which role is missing, and which groups have it."""
    named = [
        name
        for role in ACCESS_ROLES
        if reaches(role, needed)
        for name in _groups_for(role, settings)
    ]
    has = "no role on this site" if caller.role is None else f"the role {caller.role}"
    step = f"It takes a member of {' or '.join(dict.fromkeys(named))}"
    if not named:
        step = f"No group has that role: name one in access.{needed}s, or ask root"
    return NotPermittedRole(
        f"{caller.actor} has {has}; this needs the role {needed}.",
        next_step=f"{step}. `id` shows your groups.",
    )


def host_groups(peer: Peer) -> frozenset[str]:
    """The names of the account's groups as the host's databases say, and of the process's own."""
    numbers = {peer.gid}
    try:
        entry = pwd.getpwuid(peer.uid)
        numbers.update(os.getgrouplist(entry.pw_name, entry.pw_gid))
    except (KeyError, OSError):
        pass  # an account that only the kernel knows has no other groups
    names = set()
    for number in numbers:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue  # a group without a name can be in no mapping
    return frozenset(names)


def _groups_for(role: AccessRole, settings: Access) -> tuple[str, ...]:
    return {
        "viewer": settings.viewers,
        "operator": settings.operators,
        "admin": settings.admins,
    }[role]


def _bound(held: dict[K, V]) -> None:
    """Forget the oldest, when there are too many."""
    if len(held) >= _ACCOUNTS_MAX:
        held.pop(next(iter(held)))
