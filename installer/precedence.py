"""Which of two versions is the newer one.

Versions are those of PEP 440 without epochs, also written as semantic versioning does:
1.2.0.dev3 < 1.2.0a1 < 1.2.0b1 < 1.2.0-rc1 < 1.2.0rc2 < 1.2.0rc10 < 1.2.0 < 1.2.0.post1 < 1.2.1.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from installer.errors import OtherVersion

Order: TypeAlias = tuple[tuple[int, ...], tuple[int, int], tuple[int, int], tuple[int, int], str]

_FORM = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-._]?(?P<phase>alpha|beta|preview|pre|a|b|c|rc)[-._]?(?P<phase_n>\d*))?"
    r"(?:[-._]?(?P<post>post|rev|r)[-._]?(?P<post_n>\d*))?"
    r"(?:[-._]?(?P<dev>dev)[-._]?(?P<dev_n>\d*))?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-._][a-z0-9]+)*))?",
    re.IGNORECASE | re.ASCII,
)
_PHASES = {
    "a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "pre": 3, "preview": 3,
}  # fmt: skip
_DEVELOPED, _FINAL = 0, 4
_LAST = 1 << 62  # after every number that somebody writes


def order(version: str) -> Order:
    """To be compared: greater is newer. What is no version is before every one that is."""
    found = _FORM.fullmatch(version)
    if found is None:
        return ((), (0, 0), (0, 0), (0, 0), version)
    numbers = [int(part) for part in found["release"].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()  # 1.2 is 1.2.0
    if found["phase"]:
        phase = (_PHASES[found["phase"].lower()], int(found["phase_n"] or 0))
    elif found["dev"] and not found["post"]:
        phase = (_DEVELOPED, 0)
    else:
        phase = (_FINAL, 0)
    post = (1, int(found["post_n"] or 0)) if found["post"] else (0, 0)
    dev = (0, int(found["dev_n"] or 0)) if found["dev"] else (0, _LAST)
    return (tuple(numbers), phase, post, dev, (found["local"] or "").lower())


def is_version(text: str) -> bool:
    return _FORM.fullmatch(text) is not None


def major(version: str) -> int:
    """The first number; -1 of what is no version."""
    return next(iter(order(version)[0]), -1)


def refuse(current: str, to: str, *, older_is_allowed: bool = False) -> None:
    """Raises OtherVersion unless an upgrade leads from `current` to `to`.

    `older_is_allowed`: the bundle came with a signed exception for going down.
    """
    if not is_version(to):
        raise OtherVersion(
            f"The bundle calls its version {to!r}, which is none.",
            next_step="Obtain the bundle again from your vendor.",
        )
    if order(to) == order(current):
        raise OtherVersion(
            f"Version {current} is installed already.",
            next_step="cic-installer versions; cic status tells whether it serves.",
        )
    if major(to) != major(current):
        raise OtherVersion(
            f"{current} cannot become {to} in one step: another major version.",
            next_step=f"Upgrade to the last {major(current)}.x first, whose release notes tell how"
            " to go on. With settings and data kept: cic-installer backup create; cic-installer"
            f" uninstall; then ./install.sh in the folder of {to}.",
        )
    if order(to) < order(current) and not older_is_allowed:
        raise OtherVersion(
            f"{to} is older than {current}, which is installed.",
            next_step="cic-installer rollback goes back to the version before; cic-installer"
            " versions lists those that are there.",
        )
