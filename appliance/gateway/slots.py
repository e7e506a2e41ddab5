"""Keeping tenants apart in an engine that has one prefix cache for all of them.

llama.cpp keeps the last prompt of each slot and reuses its beginning; how quickly an answer comes
then tells whether somebody asked the same before. vLLM separates its cache by a salt; llama.cpp can
only be told not to reuse. That costs the reuse of one's own conversations, so it is done where
more than one tenant could be there to look.
"""

from typing import Final

import msgspec

# What a client could say to choose whose slot it lands in, or what stays there of others.
_NOT_THE_CLIENTS: Final = ("id_slot", "cache_prompt", "n_keep", "n_cache_reuse", "lora")
_FALSE: Final = msgspec.Raw(b"false")
_DECODE_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def for_llamacpp(body: bytes, *, shared: bool) -> bytes:
    """The body for llama.cpp. `shared`: more than one tenant uses this site."""
    members = _DECODE_MEMBERS(body)
    found = [members.pop(name, None) for name in _NOT_THE_CLIENTS]
    if shared:
        members["cache_prompt"] = _FALSE
    elif not any(found):
        return body
    return msgspec.json.encode(members)
