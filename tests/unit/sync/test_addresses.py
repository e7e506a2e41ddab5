"""Where the appliance may go, and what it says when it may not."""

import pytest

from appliance.sync.addresses import acceptable, parse
from appliance.sync.errors import BadControlPlaneUrl


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://control.example", "https://control.example"),
        ("https://control.example:443/", "https://control.example"),
        ("https://control.example:8443/cp/", "https://control.example:8443/cp"),
        ("https://10.1.2.3", "https://10.1.2.3"),
        ("https://[2001:db8::1]:9", "https://[2001:db8::1]:9"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_urls_that_are_taken(url: str, shown: str) -> None:
    assert parse(url).url == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "control.example",
        "ftp://control.example",
        "http://control.example",
        "http://10.0.0.1",
        "http://127.0.0.1.example",
        "https://",
        "https://control.example:0",
        "https://control.example:99999",
        "https://user:geheim@control.example",
        "https://control.example/?token=geheim",
        "https://control.example/#geheim",
        "https://control.example/a b",
        "https://kontrolle.exämple",
        "https://169.254.169.254",
        "https://[fe80::1]",
        "https://[::ffff:169.254.169.254]",
        "https://metadata.google.internal",
        "https://0xa9fea9fe",
        "https://0.0.0.0",
        "https://224.0.0.1",
        "http://[::ffff:169.254.169.254]",
        "https://" + "a" * 3_000,
    ],
)
def test_urls_that_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(BadControlPlaneUrl) as caught:
        parse(url)
    assert "geheim" not in str(caught.value)
    assert caught.value.next_step


def test_one_bad_answer_of_the_name_service_spoils_them_all() -> None:
    address = parse("https://control.example")
    assert acceptable(address, ["192.0.2.1", "10.0.0.1"]) == ["192.0.2.1", "10.0.0.1"]
    with pytest.raises(BadControlPlaneUrl, match=r"leads to 169\.254\.169\.254"):
        acceptable(address, ["192.0.2.1", "169.254.169.254"])
    with pytest.raises(BadControlPlaneUrl, match="loopback"):
        acceptable(parse("http://localhost"), ["192.0.2.1"])
