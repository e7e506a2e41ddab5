"""Versions in their order, and which of them an upgrade leads to."""

import itertools
from typing import Any

import pytest

from installer.errors import OtherVersion
from installer.precedence import is_version, major, order, refuse

IN_ORDER = (
    "0.9", "1.0.0.dev1", "1.0.0.dev10", "1.0.0a1.dev2", "1.0.0a1", "1.0.0-alpha.2", "1.0.0b1",
    "1.0.0-rc1", "1.0.0rc2", "1.0.0-rc.10", "1.0.0", "1.0.0+site.1", "1.0.0.post1.dev1",
    "1.0.0.post1", "1.0.1", "1.2", "1.10.0", "2.0.0.dev1", "2.0.0",
)  # fmt: skip


def test_every_pair_is_in_order() -> None:
    for older, newer in itertools.combinations(IN_ORDER, 2):
        assert order(older) < order(newer), (older, newer)
        assert is_version(older)


@pytest.mark.parametrize(
    ("one", "other"), [("1.2", "1.2.0"), ("1.0RC1", "1.0.0-rc.1"), ("v1.0", "1"), ("1.0c2", "1rc2")]
)
def test_other_spellings_are_the_same(one: str, other: str) -> None:
    assert order(one) == order(other)


@pytest.mark.parametrize("text", ["", "..", "one", "1.x", "1.0/../..", "1.0\n", "1!2.0", "²"])
def test_what_is_none_is_before_all_and_refused(text: str) -> None:
    assert not is_version(text)
    assert order(text) < order("0")
    assert major(text) == -1
    with pytest.raises(OtherVersion, match="which is none"):
        refuse("1.0.0", text)


@pytest.mark.parametrize(
    ("current", "to", "says"),
    [
        ("1.2.0", "1.2.0", "installed already"),
        ("1.2.0", "1.2", "installed already"),
        ("1.2.0", "1.1.9", "older than 1.2.0"),
        ("1.2.0", "1.2.0-rc10", "older than 1.2.0"),
        ("1.2.0-rc2", "1.2.0-rc10", ""),
        ("1.0.0", "1.10.0", ""),
        ("1.2.0", "2.0.0", "another major version"),
        ("2.0.0", "1.9.0", "another major version"),
    ],
)
def test_only_a_newer_version_of_the_same_major_is_taken(current: str, to: str, says: str) -> None:
    if not says:
        refuse(current, to)
        return
    with pytest.raises(OtherVersion, match=says) as refused:
        refuse(current, to)
    assert "cic-installer" in refused.value.next_step


def test_the_exception_for_going_down_holds_within_the_major_alone() -> None:
    allowed: dict[str, Any] = {"older_is_allowed": True}
    refuse("1.2.0", "1.1.0", **allowed)
    with pytest.raises(OtherVersion, match="another major"):
        refuse("2.0.0", "1.9.0", **allowed)
