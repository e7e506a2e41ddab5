"""Figures of one node's messages that would break sums, times and tables of all nodes."""

import msgspec
import pytest

from appliance.wire.agent import Heartbeat, Hello

BEAT = '{"node_id": "n", "replicas": [%s]%s}'
REPORT = '{"replica_id": "r", "deployment_id": "d", "generation": 1, "state": "ready"%s}'


@pytest.mark.parametrize(
    "message",
    [
        BEAT % ("", ', "notice": {"source": "aws", "at_ns": 1%s, "seen_ns": 1}' % ("0" * 400)),
        BEAT % ("", ', "door_port": 9223372036854775808'),
        BEAT % (REPORT % ', "loaded_s": 1e306', ""),
        BEAT % (REPORT % ', "gpu_memory_bytes": 1180591620717411303424', ""),
        BEAT % (REPORT % f', "started_ns": 1{"0" * 400}', ""),
        BEAT % (REPORT % ', "tokens_per_s": 1e300', ""),
    ],
)
def test_what_does_not_fit_is_no_heartbeat(message: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(message, type=Heartbeat)


def test_what_fits_is_one() -> None:
    raw = BEAT % (REPORT % ', "loaded_s": 61.5, "gpu_memory_bytes": 85899345920', "")
    assert msgspec.json.decode(raw, type=Heartbeat).replicas[0].loaded_s == 61.5


def test_a_hello_has_figures_that_fit() -> None:
    hello = Hello(
        node_name="n", agent_version="1", boot_id="b", cores=2, memory_bytes=2**40, engines=()
    )
    assert msgspec.json.decode(msgspec.json.encode(hello), type=Hello) == hello
