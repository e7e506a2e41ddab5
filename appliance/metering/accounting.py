"""What to bill for one request: the engine's figures where they can be true, else what was seen.

Pure. The gateway reads the figures out of whatever dialect the engine speaks; here it is decided
whether they are believed.

- A figure is believed when it is possible: an integer, not below zero, not above what the model's
  context, the request or any model at all allows. Each is judged on its own, so that an engine with
  a sane prompt and an absurd output keeps its prompt.
- More tokens from the cache than in the prompt are not believed: then none came from it.
- An output that is not believed is replaced by the tokens seen: the events that were relayed, or an
  estimate from the bytes where the answer came in one piece. One that is above what was asked and
  yet possible says that all that was asked came, so it is no less than that.
- An engine that reports one choice of several is believed as far as more was not seen.
- A prompt that is not believed is replaced by its estimate.
- The record says `engine` when both figures are the engine's, `counted` when the output was, or
  could have been, checked against relayed events, `estimated` when nothing but bytes was there.
"""

from typing import Final

import msgspec

from appliance.domain.usage import Measured, TokenCount

# No model has a context this large (64 Mi tokens); a figure above it is noise.
TOKENS_MAX: Final = 1 << 26
# English has about four bytes of text a token; code and other scripts fewer.
_TEXT_BYTES_PER_TOKEN: Final = 4


class Figures(msgspec.Struct, frozen=True, gc=False):
    """What an engine reported. None: it did not say."""

    input: int | None
    output: int | None
    cached: int = 0


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """What can be true of a request, and what its prompt was taken for when it was admitted."""

    input_max: int
    output_max: int  # that the model could generate at all
    input_estimate: int
    output_asked: int | None = None  # the most that the request allows, at most `output_max`
    one_choice_told: bool = False  # the engine's output is that of one choice of several


def estimate_output(text_bytes: int) -> int:
    """Tokens of generated text, from its length in UTF-8. Some text is at least one token."""
    return -(-text_bytes // _TEXT_BYTES_PER_TOKEN)


def settle(
    figures: Figures | None,
    seen: int,
    bounds: Bounds,
    *,
    generates: bool,
    counted: bool = True,
) -> tuple[TokenCount, Measured]:
    """The tokens to bill and how they are known.

    `seen` is what the gateway observed of the output: counted from events, or (`counted` False)
    estimated from bytes. An operation that generates nothing (`generates` False) has no output
    unless the engine says so.
    """
    inputs = None if figures is None else _believed(figures.input, bounds.input_max)
    output = None if figures is None else _believed(figures.output, bounds.output_max)
    asked = bounds.output_asked
    if output is not None and asked is not None and output > asked:
        seen = max(seen, asked)
        output = None
    if output is None and not generates and (figures is None or figures.output is None):
        output, seen = 0, 0
    if bounds.one_choice_told and generates and output is not None:
        seen = max(seen, output)
        output = None
    if inputs is not None and output is not None:
        measured = Measured.ENGINE
    elif counted and generates:
        measured = Measured.COUNTED
    else:
        measured = Measured.ESTIMATED
    if inputs is None:
        inputs = bounds.input_estimate
    if output is None:
        output = seen
    cached = 0 if figures is None else _believed(figures.cached, inputs) or 0
    return TokenCount(inputs, output, cached), measured


def _believed(figure: int | None, limit: int) -> int | None:
    # A bool is an int to Python; `type` tells them apart.
    if type(figure) is not int or not 0 <= figure <= min(limit, TOKENS_MAX):
        return None
    return figure
