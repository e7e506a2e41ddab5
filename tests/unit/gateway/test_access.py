"""One request, one key."""

import pytest
from multidict import CIMultiDict

from appliance.gateway import access
from appliance.gateway.errors import Family, InvalidApiKey
from appliance.security.api_keys import digest, new_key
from tests.fakes.endpoint import CREDENTIAL, PEPPER, snapshot

KEY = new_key()
OTHER = new_key()
BEARER = ("Authorization", f"Bearer {KEY}")


def caller(*headers, family=Family.ANTHROPIC):
    ring = access.KeyRing(snapshot(KEY, CREDENTIAL, {}), lambda t: digest(PEPPER, t), b"s" * 32)
    return access.authenticate(CIMultiDict(headers), family, ring, 0)


@pytest.mark.parametrize(
    "headers",
    [[BEARER], [("x-api-key", KEY)], [BEARER, ("X-Api-Key", KEY)]],
)
def test_one_key_said_in_either_way_or_both(headers):
    assert caller(*headers) is CREDENTIAL


@pytest.mark.parametrize(
    "headers",
    [
        [BEARER, BEARER],
        [BEARER, ("x-api-key", OTHER)],
        [BEARER, ("x-api-key", "")],
        [("x-api-key", KEY), ("x-api-key", OTHER)],
        [("x-api-key", KEY), ("x-api-key", KEY)],
        [("x-api-key", OTHER), ("x-api-key", KEY)],
        [("Authorization", "Basic eDp5"), ("x-api-key", KEY)],
        [],
    ],
)
def test_two_keys_are_none(headers):
    with pytest.raises(InvalidApiKey):
        caller(*headers)


def test_elsewhere_the_header_of_anthropic_means_nothing():
    assert caller(BEARER, ("x-api-key", OTHER), family=Family.OPENAI) is CREDENTIAL
    with pytest.raises(InvalidApiKey):
        caller(("x-api-key", KEY), family=Family.OPENAI)
