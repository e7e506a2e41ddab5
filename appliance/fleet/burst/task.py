"""The task that SkyPilot is given for one node of a burst: pure.

Written as JSON, which is YAML as well. The machine installs `cic`, joins the site with a token that
works once, and runs the agent until its money is spent: that end is kept by the machine itself, so
that it comes when the site is away too. SkyPilot then takes the idle machine down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.registry.bursts import Offer

IDLE_MINUTES: Final = 5  # without a running task; the agent is one

_RUN: Final = """\
set -eu
export PATH="$HOME/.local/bin:$PATH"
cic agent join --server "$CIC_JOIN_SERVER" --token "$CIC_JOIN_TOKEN"
unset CIC_JOIN_TOKEN
export CIC_AGENT_PREEMPTION="${CIC_PREEMPTION:-auto}"
exec timeout --signal=TERM --kill-after=120 "$CIC_LIFE_S" cic agent
"""


@dataclass(frozen=True, slots=True)
class Joining:
    """How the machine finds the site. `token` is a secret."""

    server: str
    token: str


def task(
    name: str,
    candidates: Sequence[Offer],
    *,
    install: str,
    joining: Joining,
    life_s: int,
    disk_gb: int,
) -> dict[str, Any]:
    """As SkyPilot's task YAML has it. The candidates are tried in their order."""
    return {
        "name": name,
        "num_nodes": 1,
        "resources": {
            "disk_size": disk_gb,
            "autostop": {"idle_minutes": IDLE_MINUTES, "down": True},
            "ordered": [_resources(offer) for offer in candidates],
        },
        "envs": {"CIC_JOIN_SERVER": joining.server, "CIC_LIFE_S": str(life_s)},
        "secrets": {"CIC_JOIN_TOKEN": joining.token},
        "setup": install,
        "run": _RUN,
    }


def text(of: dict[str, Any]) -> str:
    """For a file that SkyPilot reads, or a person."""
    return msgspec.json.format(msgspec.json.encode(of), indent=2).decode() + "\n"


def _resources(offer: Offer) -> dict[str, Any]:
    return {
        "infra": f"{offer.cloud.lower()}/{offer.region}",
        "instance_type": offer.instance_type,
        "accelerators": f"{offer.gpu}:{offer.gpus}",
        "use_spot": offer.spot,
    }
