"""What is read out of a body, and the body that goes on to the engine."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway import forms, request
from appliance.gateway.errors import BadRequest
from appliance.gateway.routes import CHAT, COMPLETIONS, EMBEDDINGS
from tests.fakes.endpoint import target

HI = [{"role": "user", "content": "hi"}]


def parse(route=CHAT, **fields):
    body = json.dumps({"model": "m", "messages": HI, **fields}).encode()
    return request.parse(body, route, 64, 4096)


def test_what_is_read():
    ask = parse(stream=True, max_tokens=7, n=3, stream_options={"include_usage": True})
    assert (ask.model, ask.stream, ask.output_tokens, ask.choices) == ("m", True, 7, 3)
    assert ask.usage_asked


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_output_tokens": 4}, 4),
    ],
)
def test_the_most_output(fields, tokens):
    assert parse(**fields).output_tokens == tokens


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("text", 2), (["a", "b", "c"], 6), ([1, 2, 3], 2), ([[1], [2]], 4), ([], 2)],
)
def test_each_prompt_is_answered_n_times(prompt, choices):
    assert parse(COMPLETIONS, prompt=prompt, n=2).choices == choices


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 1}, "model"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 10**12}, "n"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": HI * 4097}, "messages"),
    ],
)
def test_the_field_at_fault_is_named(fields, param):
    with pytest.raises(BadRequest) as refused:
        parse(**fields)
    assert refused.value.param == param


def test_no_model():
    with pytest.raises(BadRequest) as refused:
        request.parse(b'{"messages":[1]}', CHAT, 64, 4096)
    assert refused.value.param == "model"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
def test_a_body_is_an_object(body):
    with pytest.raises(BadRequest):
        request.parse(body, CHAT, 64, 4096)


def _forwarded(body, route, **how):
    ask = request.parse(body, route, 64, 4096)
    how = {"upstream_model": None, "cache_salt": ""} | how
    return request.forwarded(body, ask, route.operation, **how)


def test_what_needs_no_change_is_the_same_bytes():
    for route, body in (
        (CHAT, b' {"model": "m",\n "messages": [1]} '),
        (EMBEDDINGS, b'{"model":"m","stream":true,"input":"x"}'),
        (
            CHAT,
            b'{"model":"m","messages":[1],"stream":true,"stream_options":{"include_usage":true}}',
        ),
    ):
        assert _forwarded(body, route) is body


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False, "x": [1]}, {"include_usage": True, "x": [1]}),
    ],
)
def test_usage_is_always_asked_of_a_stream(options, sent):
    body = {"model": "m", "messages": HI, "stream": True, "stream_options": options}
    out = json.loads(_forwarded(json.dumps(body).encode(), CHAT))
    assert out == body | {"stream_options": sent}


def test_what_only_the_gateway_may_set():
    body = json.dumps({"model": "m", "messages": HI, "cache_salt": "mine", "priority": -9}).encode()
    out = json.loads(_forwarded(body, CHAT, cache_salt="the tenant's"))
    assert out == {"model": "m", "messages": HI, "cache_salt": "the tenant's"}


def test_the_engines_name_of_the_model():
    body = b'{"model":"m","messages":[1.50],"temperature":0.10}'
    assert _forwarded(body, CHAT, upstream_model="org/m") == (
        b'{"model":"org/m","messages":[1.50],"temperature":0.10}'
    )


MEMBERS = st.dictionaries(
    st.text(max_size=8).filter(
        lambda k: k not in request._Fields.__struct_fields__  # those have types of their own
    ),
    st.none() | st.integers() | st.text(max_size=10) | st.lists(st.integers(), max_size=3),
    max_size=5,
)


@given(MEMBERS, st.booleans(), st.sampled_from(["", "salt"]), st.sampled_from([None, "other"]))
def test_nothing_else_changes(members, stream, salt, name):
    body = {**members, "model": "m", "messages": HI, "stream": stream}
    out = json.loads(
        _forwarded(json.dumps(body).encode(), CHAT, cache_salt=salt, upstream_model=name)
    )
    wanted = dict(body)
    if stream:
        wanted["stream_options"] = {"include_usage": True}
    if salt:
        wanted["cache_salt"] = salt
    if name:
        wanted["model"] = name
    assert out == wanted


def test_the_head_of_the_request_to_an_engine():
    place = target(8000, base_path="/x", api_key="k")
    head = request.head(place, "/v1/y", b"application/json", 12, "req_1", stream=True)
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /x/v1/y HTTP/1.1"
    assert "Authorization: Bearer k" in lines
    assert "X-Request-Id: req_1" in lines
    assert "Content-Length: 12" in lines
    assert lines[-2:] == ["", ""]


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\r\n--x\r\n"
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
)


def test_a_form_names_its_model():
    assert forms.parse(FORM, "multipart/form-data; boundary=b").model == "whisper"
    assert forms.parse(FORM, 'multipart/form-data; boundary="b"').model == "whisper"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (FORM, "multipart/form-data"),
        (FORM, "multipart/form-data; boundary=c"),
        (FORM.replace(b"whisper", b""), "multipart/form-data; boundary=b"),
        (FORM.replace(b'"model"', b'"other"'), "multipart/form-data; boundary=b"),
        (FORM.replace(b'"file"', b'"model"'), "multipart/form-data; boundary=b"),
        (FORM.removesuffix(b"--b--\r\n"), "multipart/form-data; boundary=b"),
        (b"", "multipart/form-data; boundary=b"),
    ],
)
def test_a_form_that_is_none(body, content_type):
    with pytest.raises(BadRequest):
        forms.parse(body, content_type)
