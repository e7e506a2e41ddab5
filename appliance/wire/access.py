"""Who may do what on the admin API: roles of accounts of the host.

GET    /v1/me                             Me
"""

from typing import Final, Literal, get_args

from appliance.wire.admin_message import Message

# viewer: reads. operator: keeps what is there running. admin: makes, changes and removes it.
AccessRole = Literal["viewer", "operator", "admin"]
ACCESS_ROLES: Final[tuple[AccessRole, ...]] = get_args(AccessRole)


def reaches(has: AccessRole, needed: AccessRole) -> bool:
    """Each role may do all that the one before it may."""
    return ACCESS_ROLES.index(has) >= ACCESS_ROLES.index(needed)


class Me(Message, frozen=True):
    """Who asks, as the kernel says. `read_only_reason` is "" for who may change something."""

    account: str  # "uid:name", as the audit has it
    role: AccessRole
    groups: list[str]  # of the account on this host
    site: str
    mapped: bool  # settings say which groups have which role; else who can ask is an admin
    read_only_reason: str = ""
