"""Streams in any pieces: what leaves, what is held, what is counted, what is broken."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.usage import Operation
from appliance.gateway import chunks, head
from appliance.gateway.dialects import DIALECTS
from appliance.gateway.naming import Naming
from appliance.gateway.relay import Relay
from appliance.gateway.sse import EVENT_BYTES_MAX
from appliance.metering.accounting import Figures
from tests.fakes.engine_answers import events

BODIES = {
    "chat": {"model": "m", "messages": [{"content": "a b c"}], "max_tokens": 4},
    "completions": {"model": "m", "prompt": "a b c", "max_tokens": 4},
    "responses": {"model": "m", "input": "a b c", "max_output_tokens": 4},
    "messages": {"model": "m", "messages": [{"content": "a b c"}], "max_tokens": 4},
}


def relay(operation="chat", *, asked=False, every=False, naming=None):
    return Relay(
        DIALECTS[Operation(operation)], asked=asked, every=every, chunked=False, naming=naming
    )


def stream(operation, *, asked=False, every=False):
    """What an honest engine sends; usage is always asked of it."""
    body = {**BODIES[operation], "stream": True, "stream_options": {"include_usage": True}}
    return b"".join(e.data for e in events(operation, body, "m", usage_on_every=every))


def run(one, data, cuts=()):
    """Everything that leaves while the stream runs, cut where told."""
    out = b""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        if one.failure or one.done:
            break
        out += one.feed(data[start:end], None)
    return out


def parsed(data):
    lines = data.decode().split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@given(
    st.sampled_from(sorted(BODIES)),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(min_value=0, max_value=5_000), max_size=20),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_any_cut_of_the_bytes_gives_the_same(operation, asked, every, cuts, line_end):
    data = stream(operation, every=every)
    whole = relay(operation, asked=asked)
    at_once = run(whole, data)
    torn = relay(operation, asked=asked)
    in_pieces = run(torn, data.replace(b"\n", line_end) + line_end, cuts)
    assert in_pieces == at_once
    assert torn.held == whole.held
    assert (torn.done, torn.failure, torn.tokens) == (True, "", 4)
    assert torn.figures == whole.figures
    assert whole.figures.output == 4
    assert whole.figures.input == 3


@pytest.mark.parametrize("operation", ["chat", "completions"])
@pytest.mark.parametrize("every", [False, True])
def test_usage_goes_to_those_who_asked(operation, every):
    data = stream(operation, every=every)
    silent = relay(operation)
    assert all("usage" not in chunk for chunk in parsed(run(silent, data)))
    assert silent.held == [b"data: [DONE]\n\n"]
    told = relay(operation, asked=True)
    assert all(chunk["usage"] is None for chunk in parsed(run(told, data)))
    [final] = parsed(told.held[0])
    assert final["choices"] == []
    assert final["usage"]["completion_tokens"] == 4
    assert told.held[1] == b"data: [DONE]\n\n"


def test_usage_on_every_chunk_for_those_who_asked_for_that():
    one = relay(asked=True, every=True)
    assert all(chunk["usage"] for chunk in parsed(run(one, stream("chat", every=True))))


def test_an_event_that_needs_no_change_leaves_as_the_bytes_that_came():
    one = Relay(DIALECTS[Operation.CHAT], asked=False, every=False, chunked=True)
    payload = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    framed = head.chunk(payload)
    assert one.feed(payload, framed) is framed
    assert one.feed(payload, None) == framed


def test_usage_that_is_not_the_last_member_is_taken_out_too():
    one = relay()
    text = r'{"usage":{"prompt_tokens":1},"choices":[{"delta":{"content":"a,\"usage\":1"}}]}'
    [chunk] = parsed(one.feed(f"data: {text}\n\n".encode(), None))
    assert chunk == {"choices": [{"delta": {"content": 'a,"usage":1'}}]}


def test_a_final_usage_is_made_where_the_engine_sends_none():
    one = relay(asked=True)
    run(one, b'data: {"id":"x","choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n')
    [final] = parsed(one.final_usage(Figures(3, 1)))
    assert final == {
        "id": "x",
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    assert relay().final_usage(Figures(3, 1)) == b""


def test_the_clients_name_of_the_model():
    one = relay(naming=Naming(client="alias", engine="org/real"))
    text = r'"\"model\":\"org/real\""'
    data = b'data: {"model": "org/real","choices":[{"delta":{"content":%b}}]}' % text.encode()
    [chunk] = parsed(run(one, data + b"\n\n", cuts=[20]))
    assert chunk["model"] == "alias"
    assert chunk["choices"][0]["delta"]["content"] == '"model":"org/real"'


GOOD = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


@pytest.mark.parametrize(
    "bad",
    [
        b"<html>\n\n",
        b"data: {\n\n",
        b"data: 42\n\n",
        b"data: {}\n\n",
        b'data: {"choices":1}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":[],"x":"\xff"}\n\n',
        b'data: {"error":{"message":"x"}}\n\n',
        b'data: {"object":"error","message":"x"}\n\n',
        b'event: error\ndata: {"choices":[]}\n\n',
        b"data: " + b"x" * (EVENT_BYTES_MAX + 1) + b"\n\n",
        b"data: " + b"x" * (EVENT_BYTES_MAX + 1),
        b"retries: 3\n\n",
    ],
)
def test_what_breaks_a_stream(bad):
    one = relay()
    assert one.feed(GOOD + bad + b"data: [DONE]\n\n", None) == GOOD
    assert one.failure
    assert not one.done
    assert one.tokens == 1


@pytest.mark.parametrize("end", [b"", b"data: {", b": still here\n\n"])
def test_a_stream_without_its_end(end):
    one = relay()
    run(one, GOOD + end)
    assert not one.failure
    one.close()
    assert one.failure


def test_what_is_held_has_a_bound():
    one = relay(asked=True)
    final = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    assert one.feed(final, None) == b""
    for _ in range(EVENT_BYTES_MAX // len(GOOD) + 1):
        if not one.failure:
            one.feed(GOOD, None)
    assert one.failure


def test_an_end_and_nothing_else():
    one = relay()
    run(one, b"data: [DONE]\n\n")
    assert one.failure
    assert not one.alive


def test_comments_pass_and_are_no_sign_of_life():
    one = relay()
    assert one.feed(b": keep-alive\n\n", None) == b": keep-alive\n\n"
    assert not one.alive
    one.feed(GOOD, None)
    assert one.alive


@pytest.mark.parametrize(
    ("delta", "tokens"),
    [
        ({"role": "assistant", "content": ""}, 0),
        ({"role": "assistant", "content": None}, 0),
        ({"role": "assistant", "content": "a"}, 1),
        ({"content": ""}, 1),
        ({}, 0),
        ({"reasoning_content": "a"}, 1),
        ({"tool_calls": [{"index": 0}]}, 1),
    ],
)
def test_one_delta_is_one_token(delta, tokens):
    one = relay()
    one.feed(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n", None)
    assert one.tokens == tokens


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 400)))
def test_chunks_in_any_pieces(payloads, cuts):
    data = (
        b"".join(head.chunk(payload) for payload in payloads) + b"0\r\nTrailer: x\r\n\r\n" + b"rest"
    )
    reader = chunks.Dechunker()
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    out = b""
    rest = b""
    for start, end in itertools.pairwise(places):
        if reader.ended:
            rest += data[start:end]
        else:
            out += reader.feed(data[start:end])
    assert out == b"".join(payloads)
    assert reader.ended
    assert reader.broken is None
    assert reader.rest + rest == b"rest"


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"-5\r\n",
        b"+5\r\n",
        b"1_0\r\n",
        b"f" * 40 + b"\r\n",
        b"\r\n",
        b"3\r\nabcd\r\n",
        b"5;",
    ],
)
def test_chunks_that_are_none(data):
    reader = chunks.Dechunker()
    good = reader.feed(head.chunk(b"good") + data + b"x" * 9_000)
    assert good.startswith(b"good")
    assert reader.broken is not None
    assert chunks.whole_chunks(data) is None


def test_whole_chunks():
    assert chunks.whole_chunks(b"5\r\nhello\r\n") == b"hello"
    assert chunks.whole_chunks(b"5\r\nhello\r\n1\r\n!\r\n") == b"hello!"
    for other in (
        b"5\r\nhello",
        b"5\r\nhello\r\n1",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"5;x\r\nhello\r\n",
        b"5\r\nhello!!",
    ):
        assert chunks.whole_chunks(other) is None
