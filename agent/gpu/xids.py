"""The driver's error numbers (Xid), as NVIDIA's catalogue of them explains, and what to do.

An Xid is an event, not a state: how long it counts is a decision, and stands here.
"""

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["warning", "error", "fatal"]

_MINUTES: Final = 60.0


@dataclass(frozen=True, slots=True)
class XidKind:
    """`held_s` None: until the machine was booted anew, because only that is known to help."""

    meaning: str
    severity: Severity
    score: int
    held_s: float | None
    next_step: str


_LOOK_AT_PROGRAM: Final = "Look at the engine's log; the GPU itself is most often healthy."
_RESET: Final = (
    "Drain the node (`cic node drain`), then reset the GPU (`nvidia-smi --gpu-reset`) or reboot."
)
_REPLACE: Final = (
    "Drain the node (`cic node drain`) and power it off and on; when it comes back, have the GPU"
    " replaced."
)


def _program(meaning: str) -> XidKind:
    return XidKind(meaning, "warning", 70, 10 * _MINUTES, _LOOK_AT_PROGRAM)


def _serious(meaning: str, next_step: str = _RESET) -> XidKind:
    return XidKind(meaning, "error", 40, 60 * _MINUTES, next_step)


def _fatal(meaning: str, next_step: str = _RESET) -> XidKind:
    return XidKind(meaning, "fatal", 0, None, next_step)


XIDS: Final[dict[int, XidKind]] = {
    13: _program("a program made the graphics engine fail"),
    31: _program("a program touched memory that is not its own"),
    32: _program("a broken command stream"),
    43: _program("a program's work was stopped"),
    45: _program("a program's work was cleaned up"),
    46: _fatal("the GPU stopped processing"),
    48: XidKind("an uncorrectable memory error", "error", 30, None, _RESET),
    61: _serious("a breakpoint of the GPU's micro-controller"),
    62: _fatal("the GPU's micro-controller halted"),
    63: XidKind("a row of memory was remapped", "warning", 70, 60 * _MINUTES, _RESET),
    64: XidKind("a row of memory could not be remapped", "error", 10, None, _REPLACE),
    68: _program("the video processor failed"),
    69: _program("a program made the graphics engine fail"),
    74: _serious("an NVLink error", "Look at the links in `cic node show`; reset the GPUs of it."),
    79: _fatal("the GPU has fallen off the bus", _REPLACE),
    92: XidKind("many single-bit memory errors", "warning", 70, 60 * _MINUTES, _RESET),
    94: _serious("a contained memory error"),
    95: _fatal("an uncontained memory error"),
    109: _serious("a context switch took too long"),
    119: _fatal("the GPU's system processor (GSP) does not answer"),
    120: _fatal("the GPU's system processor (GSP) failed"),
    140: _fatal("an unrecovered memory error"),
    143: _fatal("the GPU could not be initialised"),
    154: _serious("the driver asks for a recovery of the GPU"),
}

_UNKNOWN: Final = _serious("an error that the driver reports")


def kind_of(xid: int) -> XidKind:
    return XIDS.get(xid, _UNKNOWN)
