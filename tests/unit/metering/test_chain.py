"""The canonical bytes of a record are a promise: these tests hold the bytes themselves."""

import hashlib

from appliance.metering import chain
from appliance.wire.records import Record, canonical

RECORD = Record(
    v=1,
    seq=1,
    record_id="rec_1",
    request_id="req_1",
    tenant_id="ten_1",
    tenant='Bäckerei "Ähre"',
    environment_id="env_1",
    environment="prod",
    key_id="key_1",
    key="backend",
    model="smollm2",
    model_digest="sha256:00",
    deployment_id="dep_1",
    region="local",
    operation="chat",
    price_class="serverless",
    node="node-1",
    status="ok",
    http_status=200,
    error_code="",
    measured="engine",
    prompt_estimate=40,
    input_tokens=31,
    output_tokens=12,
    cached_tokens=8,
    opened_at_ns=1795348800000000000,
    settled_at_ns=1795348800250000000,
    latency_ms=250,
    first_token_ms=None,
)

GOLDEN = (
    '{"v":1,"seq":1,"record_id":"rec_1","request_id":"req_1","tenant_id":"ten_1",'
    '"tenant":"Bäckerei \\"Ähre\\"","environment_id":"env_1","environment":"prod",'
    '"key_id":"key_1","key":"backend","model":"smollm2","model_digest":"sha256:00",'
    '"deployment_id":"dep_1","region":"local","operation":"chat","price_class":"serverless",'
    '"node":"node-1","status":"ok","http_status":200,"error_code":"","measured":"engine",'
    '"prompt_estimate":40,"input_tokens":31,"output_tokens":12,"cached_tokens":8,'
    '"opened_at_ns":1795348800000000000,"settled_at_ns":1795348800250000000,'
    '"latency_ms":250,"first_token_ms":null}'
).encode()


def test_the_canonical_bytes_are_these() -> None:
    assert canonical(RECORD) == GOLDEN


def test_the_hash_of_the_first_record_is_this() -> None:
    assert chain.link(chain.GENESIS, GOLDEN) == hashlib.sha256(bytes(32) + GOLDEN).digest()
    assert chain.link(chain.GENESIS, GOLDEN).hex() == (
        "983a7dfb14e2fcb6f99b96a85da8bdc93fad4824eaa9e694cddb2f5d418562e5"
    )


def test_each_hash_depends_on_the_one_before() -> None:
    first = chain.link(chain.GENESIS, GOLDEN)
    assert chain.link(first, GOLDEN) != first
