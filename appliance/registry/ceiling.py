"""A bound over the global layer that is not set on the site: of an entitlement that ran out."""

from dataclasses import replace

from appliance.domain.limits import Limits


class Ceiling:
    """Tokens a minute for the whole site; None: no bound. Lower limits stay as they are."""

    __slots__ = ("tokens_per_min",)

    def __init__(self) -> None:
        self.tokens_per_min: int | None = None

    def over(self, limits: Limits) -> Limits:
        """The global layer's limits with this bound."""
        bound = self.tokens_per_min
        if bound is None or (limits.tokens_per_min is not None and limits.tokens_per_min <= bound):
            return limits
        return replace(limits, tokens_per_min=bound)
