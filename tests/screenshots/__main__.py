"""`make screenshots`: the console of real sites, painted into docs/pictures."""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from appliance.wire.home import find_home
from console.app import ConsoleApp
from console.profile import Profile
from tests.fakes.site import Site
from tests.screenshots.gallery import PAGE, PICTURES, page
from tests.screenshots.painting import NoFont, Painter
from tests.screenshots.scenes import SCENES, Scene, State
from tests.screenshots.sites import busy, empty

_SEEN_S: Final = 30.0
_SETTLED_S: Final = 2.5  # figures of rates need two Ticks


def main() -> int:
    only = set(sys.argv[1:])
    unknown = only - {scene.name for scene in SCENES}
    if unknown:
        names = ", ".join(scene.name for scene in SCENES)
        print(f"No picture is called {', '.join(sorted(unknown))}. There are: {names}.")
        return 2
    try:
        painter = Painter()
    except NoFont as error:
        print(error, file=sys.stderr)
        return 7
    wanted = [scene for scene in SCENES if not only or scene.name in only]
    missed = _paint_all(painter, wanted)
    PAGE.write_text(page())
    for name, why in missed:
        print(f"missed   {name}: {why}", file=sys.stderr)
    return 1 if missed else 0


def _paint_all(painter: Painter, wanted: list[Scene]) -> list[tuple[str, str]]:
    missed: list[tuple[str, str]] = []

    def of(state: State, site: Site) -> None:
        for scene in wanted:
            if scene.state == state:
                why = asyncio.run(_painted(painter, scene, site))
                if why:
                    missed.append((scene.name, why))
                else:
                    print(f"painted  {scene.name}", flush=True)

    states = {scene.state for scene in wanted}
    with tempfile.TemporaryDirectory(prefix="cl-") as folder:
        if "empty" in states:
            with empty(_made(folder, "e")) as site:
                of("empty", site)
        if states - {"empty"}:
            with busy(_made(folder, "b"), lambda line: print(line, flush=True)) as made:
                of("busy", made.site)
                made.go_wrong()
                of("failed", made.site)
                of("stale", made.site)
    return missed


def _made(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path


async def _painted(painter: Painter, scene: Scene, site: Site) -> str:
    """What was not seen; "" when the picture is there."""
    profile = Profile(
        dumb=False, ascii=scene.ascii, colours="truecolor", mouse=False, refresh_s=1.0
    )
    app = ConsoleApp(find_home(str(site.home)), profile, start=scene.mode)
    async with app.run_test(size=scene.size, notifications=True) as pilot:

        def text() -> str:
            strips = app.screen._compositor.render_strips()
            return "\n".join(strip.text.rstrip() for strip in strips)

        async def until(what: str) -> bool:
            for _ in range(round(_SEEN_S / 0.1)):
                if what in text():
                    return True
                await pilot.pause(0.1)
            return False

        if not await until("live "):
            return f"no data came:\n{text()}"
        await pilot.pause(_SETTLED_S)
        for key in scene.keys:
            await pilot.press(key)
        if scene.state == "stale":
            site.kill()
        if not await until(scene.reads):
            return f"{scene.reads!r} was not seen on:\n{text()}"
        await pilot.pause(_SETTLED_S)
        strips = app.screen._compositor.render_strips()
        painter.paint(strips, scene.size, PICTURES / f"{scene.name}.png")
    return ""


if __name__ == "__main__":
    sys.exit(main())
