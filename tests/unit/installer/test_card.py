"""The card at the end of an installation."""

import pytest

from installer.card import Card, address_without_route, as_json, as_text, reachable


@pytest.mark.parametrize(
    ("listen", "told", "shown"),
    [
        ("0.0.0.0:8080", "http://127.0.0.1:8080/v1", "http://10.1.2.3:8080/v1"),
        ("[::]:8080", "http://[::1]:8080/v1", "http://10.1.2.3:8080/v1"),
        (":8080", "http://127.0.0.1:8080/v1", "http://10.1.2.3:8080/v1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("10.9.9.9:8080", "http://10.9.9.9:8080/v1", "http://10.9.9.9:8080/v1"),
    ],
)
def test_the_endpoint_is_one_that_other_hosts_reach(listen: str, told: str, shown: str) -> None:
    assert reachable(told, listen, lambda: "10.1.2.3") == shown


def test_an_address_is_found_without_a_route() -> None:
    assert address_without_route() not in {"", "0.0.0.0", "127.0.0.1"}


def test_a_key_in_a_file_is_not_printed() -> None:
    card = Card("1.0.0", "site", "", "", "clsk_live_secret", "/etc/first.key", (), True, (), ())
    assert as_json(card)["key"] == ""
    assert "clsk_live_secret" not in as_text(card)
    assert "/etc/first.key" in as_text(card)
    without = Card("1.0.0", "site", "", "", "clsk_live_secret", "", (), True, (), ())
    assert as_json(without)["key"] == "clsk_live_secret"
    assert "clsk_live_secret" in as_text(without)
