"""How long to wait before the next attempt: exponential, with full jitter.

Full jitter (a uniform draw between nothing and the ceiling) spreads a fleet of sites that lost the
control plane at the same moment best over time. Source: AWS Architecture Blog, "Exponential Backoff
And Jitter".
"""

from collections.abc import Callable
from typing import Final

_DRAW_BYTES: Final = 8
_DOUBLINGS_MAX: Final = 62  # beyond it the ceiling is reached by any setting


def wait_ms(failures: int, first_ms: int, longest_ms: int, entropy: Callable[[int], bytes]) -> int:
    """Milliseconds to wait after the `failures`-th failure in a row; 0 when there was none."""
    if failures <= 0:
        return 0
    ceiling = min(longest_ms, first_ms << min(failures - 1, _DOUBLINGS_MAX))
    return int.from_bytes(entropy(_DRAW_BYTES)) * (ceiling + 1) >> (8 * _DRAW_BYTES)


def interval_ms(interval_ms_set: int, entropy: Callable[[int], bytes]) -> int:
    """The regular interval, up to a tenth shorter, so that sites do not march in step."""
    tenth = interval_ms_set // 10
    draw = int.from_bytes(entropy(_DRAW_BYTES)) * (tenth + 1) >> (8 * _DRAW_BYTES)
    return interval_ms_set - draw
