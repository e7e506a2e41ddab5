"""Moments and hours: one form, UTC, and back without loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.manifests.errors import BadDocument
from appliance.manifests.moments import hour, hour_ms, moment, moment_ms

YEAR_9999_MS = 253_402_300_799_999


@given(st.integers(0, YEAR_9999_MS))
def test_moments_come_back_as_they_were(at_ms: int) -> None:
    text = moment(at_ms)
    assert moment_ms(text) == at_ms
    if at_ms < 2**63 // 1_000_000:
        started_ms = hour_ms(hour(at_ms * 1_000_000))
        assert started_ms % 3_600_000 == 0
        assert 0 <= at_ms - started_ms < 3_600_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-22",
        "2026-11-22T19:22:03Z",
        "2026-11-22T19:22:03.250",
        "2026-11-22T19:22:03.2500Z",
        "2026-11-22T19:22:03.250+00:00",
        "2026-11-22T20:22:03.250+01:00",
        "2026-11-22 19:22:03.250Z",
        "2026-11-22T19:22:60.000Z",
        "2026-02-29T19:22:03.250Z",
        "2026-11-22T24:00:00.000Z",
        "2026-W47-7T19:22:03.250Z",
        "20261122T192203.250Z",
        " 2026-11-22T19:22:03.250Z",
        "2026-11-22T19:22:03.250z",
        "٢026-11-22T19:22:03.250Z",
    ],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(BadDocument):
        moment_ms(text)


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-22T19:00:00.000Z", "2026-11-22T19:30:00Z", "2026-11-22T19:00:01Z", ":00:00Z"],
)
def test_an_hour_begins_at_its_beginning(text: str) -> None:
    assert hour_ms("2026-11-22T19:00:00Z") == moment_ms("2026-11-22T19:00:00.000Z")
    with pytest.raises(BadDocument):
        hour_ms(text)
