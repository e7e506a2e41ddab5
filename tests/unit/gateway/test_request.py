"""What is read out of a body, and the body that goes on to the engine."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway import forms, request
from appliance.gateway.errors import BadRequest, UnsupportedOperation
from appliance.gateway.routes import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RERANK,
    RESPONSES,
    SCORE,
)
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
        ({"max_tokens": 1, "n_predict": 300}, 300),
        ({"max_tokens": 300, "n_predict": 1}, 300),
        ({"max_tokens": 300, "max_completion_tokens": 2}, 300),
        ({"max_tokens": 0, "n_predict": None}, 0),
    ],
)
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_the_most_output(route, fields, tokens):
    assert parse(route, **fields).output_tokens == tokens


LENGTHS = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n_predict",
    "num_predict",
    "max_new_tokens",
    "max_length",
    "max_tokens_to_sample",
]


@pytest.mark.parametrize("name", LENGTHS)
def test_whatever_an_engine_may_follow_is_a_length(name):
    assert parse(**{"max_tokens": 3, "max_output_tokens": 4, name: 77}).output_tokens == 77
    for wrong in (-1, 1.5, 7.0, "7", True, [7], 1 << 40):
        with pytest.raises(BadRequest) as refused:
            parse(**{name: wrong})
        assert refused.value.param == name


def test_every_name_of_a_number_of_choices():
    assert parse(n=2, n_cmpl=5, best_of=3).choices == 5
    with pytest.raises(BadRequest) as refused:
        parse(n_cmpl=0)
    assert refused.value.param == "n_cmpl"


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [
        ("text", 2),
        (["a", "b", "c"], 6),
        ([1, 2, 3], 2),
        ([[1], [2]], 4),
        ([], 2),
        (None, 2),
        ([{"prompt_string": "a"}, {"prompt_string": "b"}], 4),
        ({"prompt_string": "[1,2]"}, 2),
        ([1, "a", 2], 6),
    ],
)
def test_each_prompt_is_answered_n_times(prompt, choices):
    ask = parse(COMPLETIONS, prompt=prompt, n=2)
    assert (ask.choices, ask.inputs) == (choices, choices // 2)


@pytest.mark.parametrize(
    ("route", "fields", "inputs"),
    [
        (EMBEDDINGS, {"input": "a, b"}, 1),
        (EMBEDDINGS, {"input": ["a", "b, c", ""]}, 3),
        (EMBEDDINGS, {"input": [[1, 2], [3], [4, 5, 6]]}, 3),
        (EMBEDDINGS, {"content": ["a", "b"]}, 2),
        (RERANK, {"query": "q", "documents": ["a", "b", "c"]}, 4),
        (RERANK, {"query": "q", "texts": ["a", "b"]}, 3),
        (RERANK, {"query": "q", "documents": {"content": [{"text": "a"}, {"text": "b"}]}}, 3),
        (SCORE, {"text_1": "q", "text_2": ["a", "b"]}, 3),
        (SCORE, {"queries": ["q", "r"], "documents": ["a", "b"]}, 4),
        (RESPONSES, {"input": [{"role": "user", "content": "a"}] * 3}, 1),
    ],
)
def test_each_input_is_counted(route, fields, inputs):
    ask = parse(route, **fields)
    assert (ask.inputs, ask.choices) == (inputs, inputs)


@pytest.mark.parametrize(
    ("route", "fields", "token_ids"),
    [
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 3),
        (COMPLETIONS, {"prompt": [[1, 2], [3, 4]]}, 4),
        (EMBEDDINGS, {"input": [[1], [2], [3, 4, 5]]}, 5),
        (EMBEDDINGS, {"input": ["1,2", "3"]}, 0),
    ],
)
def test_tokens_that_came_as_numbers_are_counted(route, fields, token_ids):
    assert parse(route, **fields).token_ids == token_ids


def test_a_query_is_read_again_with_each_document():
    body = json.dumps({"model": "m", "query": "q" * 98, "documents": ["a"] * 10}).encode()
    assert request.parse(body, RERANK, 64, 4096).input_bytes == len(body) + 9 * 100
    assert parse(RERANK, query="q", documents=["a"]).input_bytes == len(
        json.dumps({"model": "m", "messages": HI, "query": "q", "documents": ["a"]})
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("background", True),
        ("background", "true"),
        ("store", True),
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
    ],
)
def test_a_response_is_not_kept(name, value):
    with pytest.raises(UnsupportedOperation) as refused:
        parse(RESPONSES, **{name: value})
    assert refused.value.param == name
    for harmless in (None, False):
        assert parse(RESPONSES, **{name: harmless}).model == "m"
    assert parse(CHAT, **{name: value}).model == "m"


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
        lambda k: k not in request._Generating.__struct_fields__  # those have types of their own
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
