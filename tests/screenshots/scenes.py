"""What is painted: a console of a site in a state, after some keys, once it reads a text."""

from dataclasses import dataclass
from typing import Final, Literal

SMALL: Final = (80, 24)
LARGE: Final = (160, 48)
State = Literal["empty", "busy", "failed", "stale"]
MODES: Final = ("dash", "fleet", "models", "tenants", "usage", "logs", "chat", "ops")


@dataclass(frozen=True, slots=True)
class Scene:
    """`keys` are typed one after the other, each when the one before was painted."""

    name: str
    mode: str  # its digit
    reads: str  # what has to stand there before it is painted
    caption: str
    size: tuple[int, int] = SMALL
    ascii: bool = False
    keys: tuple[str, ...] = ()
    state: State = "busy"


def _letters(text: str) -> tuple[str, ...]:
    return tuple("space" if sign == " " else sign for sign in text)


_SEEN: Final = {
    "dash": "tiny-chat",
    "fleet": "8 GPU",
    "models": "tiny-code",
    "tenants": "city-hospital",
    "usage": "acme",
    "logs": "live",
    "chat": "tiny-chat",
    "ops": "Backups",
}
_CAPTIONS: Final = {
    "dash": "Dash: every GPU, every deployment, every tenant, and what wants attention",
    "fleet": "Fleet: nodes, and what can be done to the selected one",
    "models": "Models: deployments, their replicas and their speed",
    "tenants": "Tenants: what they do now, and how near they are to their limits",
    "usage": "Usage: by tenant over time, manifests, control plane, entitlement",
    "logs": "Logs: of the appliance, followed and filtered",
    "chat": "Chat: a deployment asked as the administrator",
    "ops": "Ops: how each part of the site stands",
}
_ASKED: Final = ("a", *_letters("which way does a river flow"), "enter")


def _modes(size: tuple[int, int], *, ascii_only: bool) -> list[Scene]:
    label = f"{size[0]}x{size[1]}" + ("-ascii" if ascii_only else "")
    return [
        Scene(
            name=f"{mode}-{label}",
            mode=str(number),
            reads="tokens/s" if mode == "chat" else _SEEN[mode],
            caption=_CAPTIONS[mode] + (", in ASCII" if ascii_only else ""),
            size=size,
            ascii=ascii_only,
            keys=_ASKED if mode == "chat" else (),
        )
        for number, mode in enumerate(MODES, 1)
    ]


SCENES: Final = (
    Scene(
        *("first-steps", "1", "A first question", "A site just installed: what is left to do"),
        keys=("i",),
        state="empty",
    ),
    Scene("empty-dash", "1", "No nodes yet", "Nothing is there yet", state="empty"),
    Scene("empty-models", "3", "Nothing is deployed", "No model yet", state="empty"),
    Scene("empty-tenants", "4", "No tenants yet", "No tenant yet", state="empty"),
    *_modes(SMALL, ascii_only=False),
    *_modes(LARGE, ascii_only=False),
    *_modes(SMALL, ascii_only=True),
    Scene("help", "1", "Quit", "Every key that works here", keys=("question_mark",)),
    Scene("palette", "1", "mode 4", "Commands by name", keys=("colon", *_letters("ten"))),
    Scene("node", "2", "GPU", "A node: its GPUs, engines and plots", LARGE, keys=("enter",)),
    Scene("deployment", "3", "Replicas", "A deployment", LARGE, keys=("enter",)),
    Scene("tenant", "4", "prod", "A tenant: environments, keys, limits", keys=("enter",)),
    Scene("reserved", "4", "ATTAINED", "Reserved capacity, and how it is kept", LARGE, keys=("v",)),
    Scene("delete", "4", "Type", "What loses data wants its name typed", keys=("X",)),
    Scene("failed-dash", "1", "lost", "A GPU fell off the bus", LARGE, state="failed"),
    Scene("failed-fleet", "2", "8 GPU", "The same, in the fleet", state="failed"),
    Scene("alerts", "6", "GPU", "What wants attention", keys=("exclamation_mark",), state="failed"),
    Scene("stale", "1", "STALE", "The appliance does not answer: what was known", state="stale"),
)
