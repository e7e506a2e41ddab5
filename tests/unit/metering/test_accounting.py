"""Figures of engines are believed only when they can be true."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.usage import Measured, TokenCount
from appliance.metering.accounting import TOKENS_MAX, Bounds, Figures, estimate_output, settle

BOUNDS = Bounds(input_max=4_096, output_max=128, input_estimate=40)
ASKED = Bounds(input_max=4_096, output_max=4_096, input_estimate=40, output_asked=128)
SEVERAL = Bounds(
    input_max=4_096, output_max=4_096, input_estimate=40, output_asked=384, one_choice_told=True
)


def test_sane_figures_are_the_engines() -> None:
    tokens, measured = settle(Figures(31, 12, 8), 11, BOUNDS, generates=True)
    assert tokens == TokenCount(31, 12, 8)
    assert measured is Measured.ENGINE


@pytest.mark.parametrize(
    "output", [-1, 129, 10**15, 10**30, None, True, 7.0, "7"], ids=lambda value: f"{value!r}"
)
def test_an_output_that_cannot_be_true_is_replaced_by_what_was_counted(output: Any) -> None:
    tokens, measured = settle(Figures(31, output), 11, BOUNDS, generates=True)
    assert tokens == TokenCount(31, 11, 0)
    assert measured is Measured.COUNTED


def test_more_than_was_asked_is_at_least_what_was_asked() -> None:
    """An engine may generate beyond the limit it was given: that is never cheaper than within."""
    assert settle(Figures(31, 128), 11, ASKED, generates=True) == (
        TokenCount(31, 128),
        Measured.ENGINE,
    )
    assert settle(Figures(31, 300), 11, ASKED, generates=True) == (
        TokenCount(31, 128),
        Measured.COUNTED,
    )
    assert settle(Figures(31, 300), 299, ASKED, generates=True)[0] == TokenCount(31, 299)
    assert settle(Figures(31, 300), 90, ASKED, generates=True, counted=False) == (
        TokenCount(31, 128),
        Measured.ESTIMATED,
    )


@pytest.mark.parametrize("output", [4_097, 10**12, 10**30])
def test_an_absurd_output_is_not_what_was_asked(output: int) -> None:
    assert settle(Figures(31, output), 11, ASKED, generates=True)[0] == TokenCount(31, 11)


def test_where_one_choice_is_reported_all_are_billed() -> None:
    assert settle(Figures(31, 100), 290, SEVERAL, generates=True) == (
        TokenCount(31, 290),
        Measured.COUNTED,
    )
    # What was seen is an estimate, and may be too low.
    assert settle(Figures(31, 100), 60, SEVERAL, generates=True, counted=False) == (
        TokenCount(31, 100),
        Measured.ESTIMATED,
    )
    assert settle(Figures(31, None), 290, SEVERAL, generates=True)[0] == TokenCount(31, 290)


@pytest.mark.parametrize("prompt", [-1, 4_097, 10**30, None, False, 3.5, "31"])
def test_a_prompt_that_cannot_be_true_is_replaced_by_its_estimate(prompt: Any) -> None:
    tokens, measured = settle(Figures(prompt, 12), 11, BOUNDS, generates=True)
    assert tokens == TokenCount(40, 12, 0)
    assert measured is Measured.COUNTED


def test_without_figures_everything_is_what_was_seen() -> None:
    assert settle(None, 11, BOUNDS, generates=True) == (TokenCount(40, 11, 0), Measured.COUNTED)
    assert settle(None, 11, BOUNDS, generates=True, counted=False) == (
        TokenCount(40, 11, 0),
        Measured.ESTIMATED,
    )


def test_more_from_the_cache_than_in_the_prompt_is_not_believed() -> None:
    tokens, measured = settle(Figures(5, 3, 999_999), 3, BOUNDS, generates=True)
    assert tokens == TokenCount(5, 3, 0)
    assert measured is Measured.ENGINE


def test_an_embedding_has_no_output_and_needs_no_figure_for_it() -> None:
    assert settle(Figures(9, None), 0, BOUNDS, generates=False) == (
        TokenCount(9, 0, 0),
        Measured.ENGINE,
    )
    assert settle(None, 7, BOUNDS, generates=False) == (TokenCount(40, 0, 0), Measured.ESTIMATED)


def test_no_figure_is_beyond_any_model() -> None:
    wide = Bounds(input_max=10**30, output_max=10**30, input_estimate=1)
    tokens, _ = settle(Figures(TOKENS_MAX + 1, TOKENS_MAX), 3, wide, generates=True)
    assert tokens == TokenCount(1, TOKENS_MAX, 0)


def test_some_text_is_some_tokens() -> None:
    assert [estimate_output(length) for length in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(0, 200), st.floats(), st.text(max_size=3)
)


@given(
    figures=st.one_of(st.none(), st.builds(Figures, anything, anything, anything)),
    seen=st.integers(0, 5_000),
    generates=st.booleans(),
    counted=st.booleans(),
)
def test_whatever_an_engine_says_the_count_can_be_true(
    *, figures: Figures | None, seen: int, generates: bool, counted: bool
) -> None:
    tokens, measured = settle(figures, seen, BOUNDS, generates=generates, counted=counted)
    assert 0 <= tokens.cached <= tokens.input <= BOUNDS.input_max
    assert all(type(n) is int for n in (tokens.input, tokens.output, tokens.cached))
    assert 0 <= tokens.output <= max(BOUNDS.output_max, seen)
    if measured is Measured.ENGINE:
        assert figures is not None
        assert tokens.input == figures.input
        assert tokens.output == (figures.output or 0)
    elif figures is not None and tokens.output != seen and generates:
        assert tokens.output == figures.output  # only the prompt was not believed
