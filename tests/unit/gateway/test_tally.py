"""The output of several choices, where the engine reports one of them."""

import json
from dataclasses import replace

import pytest

from appliance.domain.usage import Measured, TokenCount
from appliance.gateway import pipeline, request
from appliance.gateway.dialects import DIALECTS
from appliance.gateway.order import Order
from appliance.gateway.relay import Relay
from appliance.gateway.routes import CHAT
from appliance.gateway.tally import Tally
from appliance.limits.estimate import PromptEstimator
from appliance.metering.accounting import Figures
from tests.fakes.endpoint import CREDENTIAL, ENTRY, chat

LLAMACPP = replace(ENTRY, engine="llamacpp", context_tokens=100)


def tally(entry=LLAMACPP, **fields):
    body = json.dumps(chat(**fields)).encode()
    ask = request.parse(body, CHAT, 64, 4096)
    order = Order(
        route=CHAT,
        ask=ask,
        body=body,
        content_type=b"application/json",
        caller=CREDENTIAL,
        entry=entry,
        reservation=None,
        spared=(),
        prompt_estimate=40,
        bounds=pipeline._bounds(ask, entry, 40, 40),
        lines=b"",
        shared=False,
    )
    return Tally(order, PromptEstimator())


def answer(*choices):
    return json.dumps(
        {"choices": [{"message": {"content": c}, "finish_reason": why} for c, why in choices]}
    ).encode()


@pytest.mark.parametrize(
    ("fields", "choices", "output"),
    [
        # As long as was asked: five each, whatever the text looks like.
        ({"n": 3}, [("a", "length")] * 3, 15),
        ({"n": 2}, [("a", "length"), ("abcdefgh", "stop")], 7),
        # Never less than what the engine said of one.
        ({"n": 2}, [("", "stop"), ("", "stop")], 4),
        # As long as the context: 100 with a prompt of 31.
        ({"n": 2, "max_tokens": 500}, [("a", "length")] * 2, 138),
        ({"n": 2, "max_tokens": None}, [("a", "length")] * 2, 138),
    ],
)
def test_an_answer_of_several_choices(fields, choices, output):
    one = tally(**fields)
    one.take_answer(Figures(31, 4), answer(*choices))
    assert (one.tokens, one.measured) == (TokenCount(31, output), Measured.ESTIMATED)


def test_where_the_engine_counts_all_it_is_believed():
    for one in (tally(n=1), tally(ENTRY, n=3)):
        one.take_answer(Figures(31, 4), answer(("a" * 400, "stop")))
        assert (one.tokens, one.measured) == (TokenCount(31, 4), Measured.ENGINE)


def test_a_stream_of_several_choices():
    relay = Relay(DIALECTS[CHAT.operation], asked=True, every=False, chunked=False)
    for index in range(6):
        chunk = {"choices": [{"index": index % 2, "delta": {"content": f"t{index}"}}]}
        relay.feed(b"data: %b\n\n" % json.dumps(chunk).encode(), None)
    usage = {"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 3}}
    relay.feed(b"data: %b\n\n" % json.dumps(usage).encode(), None)
    relay.feed(b"data: [DONE]\n\n", None)
    assert relay.done
    one = tally(n=2)
    one.take_stream(relay)
    assert (one.tokens, one.measured) == (TokenCount(31, 6), Measured.COUNTED)


def test_more_than_was_asked_costs_no_less_than_what_was_asked():
    one = tally(max_tokens=20)
    one.take_answer(Figures(31, 60), answer(("abcd", "stop")))
    assert (one.tokens, one.measured) == (TokenCount(31, 20), Measured.ESTIMATED)
