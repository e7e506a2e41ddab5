"""One record of the ledger as it is hashed, sealed and proven: a versioned message.

- The canonical bytes of a record are the JSON object of `Record` as msgspec writes it: every field,
  in the order of the class, no white space, UTF-8, numbers as integers, absent as null.
"""

from typing import Final

import msgspec

VERSION: Final = 1

_encoder = msgspec.json.Encoder()


class Record(msgspec.Struct, frozen=True, gc=False):
    """One line of the ledger. The order of the fields is the order of the canonical bytes.

    A field is never moved, renamed or taken away; a change of meaning is a new `v`.
    """

    v: int  # version of this layout
    seq: int  # contiguous from 1, in the order of commits
    record_id: str
    request_id: str  # unique; `<id>~<record_id>` where a client used an id again
    tenant_id: str
    tenant: str
    environment_id: str
    environment: str
    key_id: str
    key: str
    model: str
    model_digest: str
    deployment_id: str
    region: str
    operation: str
    price_class: str
    node: str
    status: str
    http_status: int
    error_code: str
    measured: str
    prompt_estimate: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    opened_at_ns: int
    settled_at_ns: int
    latency_ms: int
    first_token_ms: int | None


def canonical(record: Record) -> bytes:
    """The bytes of a record that are hashed, proven and signed."""
    return _encoder.encode(record)
