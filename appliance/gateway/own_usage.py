"""`GET /v1/usage` and `GET /v1/usage/{record}/proof`: what a key sees of its own use alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec

from appliance.domain.clock import iso
from appliance.domain.ids import KeyId, TenantId
from appliance.limits.reservation import Dimension, Gauge
from appliance.metering.reader import KeyUsage, Tokens
from appliance.registry.snapshot import Credential

USAGE_PATH: Final = "/v1/usage"
_DAY_NS: Final = 86_400 * 1_000_000_000
_PROOF: Final = re.compile(r"/v1/usage/([^/]{1,400})/proof")


class OwnBooks(Protocol):
    """The site's books, as far as their owner may look. `appliance.main` brings them."""

    async def usage(self, key_id: KeyId, day_ns: int, month_ns: int) -> Sequence[KeyUsage]:
        """By model, in three sums: since these two moments, and since ever. Raises LedgerDown."""
        ...

    async def proof(self, tenant_id: TenantId, ref: str) -> bytes:
        """JSON. Raises UsageNotFound for what is not this tenant's, NotSealedYet, LedgerDown."""
        ...


@dataclass(frozen=True, slots=True)
class LayerGauges:
    """How much of one layer's limits is left."""

    layer: str
    gauges: Mapping[Dimension, Gauge]


def proof_ref(path: str) -> str | None:
    """The id in the path of a proof; None when it is another path."""
    found = _PROOF.fullmatch(path)
    return None if found is None else unquote(found[1])


def day_and_month_ns(now_ns: int) -> tuple[int, int]:
    """The starts of this day and of this month, UTC."""
    day_ns = now_ns - now_ns % _DAY_NS
    day_of_month = int(iso(now_ns)[8:10])
    return day_ns, day_ns - (day_of_month - 1) * _DAY_NS


def report(
    caller: Credential,
    usage: Sequence[KeyUsage],
    layers: Sequence[LayerGauges],
    now_ns: int,
) -> bytes:
    """The answer to `GET /v1/usage`."""
    day_ns, month_ns = day_and_month_ns(now_ns)
    return msgspec.json.encode(
        {
            "object": "usage",
            "key": caller.key_name,
            "environment": caller.environment_name,
            "tenant": caller.tenant_name,
            "at": iso(now_ns),
            "today": {"since": iso(day_ns), **_sums([one.day for one in usage])},
            "month": {"since": iso(month_ns), **_sums([one.month for one in usage])},
            "total": _sums([one.total for one in usage]),
            "models": [
                {
                    "model": one.model,
                    "today": _sums([one.day]),
                    "month": _sums([one.month]),
                    "total": _sums([one.total]),
                }
                for one in usage
            ],
            "limits": [
                {
                    "layer": each.layer,
                    **{
                        dimension.value: {
                            "limit": gauge.limit,
                            "remaining": gauge.remaining,
                            "reset_s": -int(-gauge.reset_s // 1),
                        }
                        for dimension, gauge in each.gauges.items()
                    },
                }
                for each in layers
            ],
        }
    )


def _sums(parts: Sequence[Tokens]) -> dict[str, int]:
    inputs = sum(part.input_tokens for part in parts)
    outputs = sum(part.output_tokens for part in parts)
    return {
        "requests": sum(part.requests for part in parts),
        "input_tokens": inputs,
        "cached_tokens": sum(part.cached_tokens for part in parts),
        "output_tokens": outputs,
        "total_tokens": inputs + outputs,
    }
