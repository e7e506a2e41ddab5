"""Controls: a delivery that resends naively. The same checker must find that it bills twice."""

import dataclasses
import secrets
from collections.abc import Callable
from typing import Any

from appliance.controlplane.payments import sending
from appliance.controlplane.payments.delivery import Fate, Step


def _blindly() -> None:
    """Send what is in doubt again with its identifier, however old the first attempt is."""

    def next_step(fate: Fate, _doubt_since_s: int | None, **_: Any) -> Step:
        return {Fate.METERED: Step.SEND, Fate.LATE: Step.BILL_LATE, Fate.WAIT: Step.WAIT}[fate]

    sending.next_step = next_step  # type: ignore[assignment]  # the point of the control


def _anew() -> None:
    """Make up an identifier for each attempt."""
    begin = sending._begin

    def begin_anew(*args: Any, **kwargs: Any) -> sending.Sending:
        found = begin(*args, **kwargs)
        event = dataclasses.replace(found.event, identifier=f"anew-{secrets.token_hex(16)}")
        return dataclasses.replace(found, event=event)

    sending._begin = begin_anew


NAIVE: dict[str, Callable[[], None]] = {"blindly": _blindly, "anew": _anew}
