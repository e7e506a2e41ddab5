"""What all messages of the admin API have in common."""

from typing import Literal

import msgspec

State = Literal["active", "suspended"]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field nobody knows is a typing mistake, and an error."""
