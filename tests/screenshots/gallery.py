"""docs/SCREENS.md: every picture with what it shows."""

from itertools import groupby
from pathlib import Path
from typing import Final

from tests.screenshots.scenes import LARGE, SCENES, SMALL, Scene

PICTURES: Final = Path(__file__).parents[2] / "docs" / "pictures"
PAGE: Final = PICTURES.parent / "SCREENS.md"
_OPENING: Final = """# The console in pictures

Painted by `make screenshots`: the console of real sites, one just installed and one at work, cell
by cell. At work means: two small models under real llama.cpp on a machine's processor, three
tenants who ask all the time, and a GPU library that tells of eight H100 which are not there.
Temperatures, memory and use of GPUs are what that library says; everything else is what happened.
"""


def page() -> str:
    parts = [_OPENING]
    for title, scenes in groupby(SCENES, key=_chapter):
        parts.append(f"## {title}\n")
        parts += [
            f"{each.caption}:\n\n![{each.caption}](pictures/{each.name}.png)\n" for each in scenes
        ]
    return "\n".join(parts)


def _chapter(scene: Scene) -> str:
    if scene.state == "empty":
        return "A site just installed"
    if scene.state in ("failed", "stale"):
        return "When something is wrong"
    if "-80x24-ascii" in scene.name:
        return "In ASCII"
    for size, title in ((SMALL, "80 x 24"), (LARGE, "160 x 48")):
        if scene.name.endswith(f"-{size[0]}x{size[1]}"):
            return f"At work, {title}"
    return "One level deeper"
