"""The pictures of the console: all there, none too many, none too large."""

from tests.screenshots.gallery import PAGE, PICTURES, page
from tests.screenshots.scenes import MODES, SCENES

BYTES_MAX = 60 * 1024
ALL_BYTES_MAX = 1_500 * 1024


def test_every_scene_is_painted_and_nothing_else_lies_there() -> None:
    assert sorted(path.stem for path in PICTURES.iterdir()) == sorted(each.name for each in SCENES)
    sizes = [path.stat().st_size for path in PICTURES.iterdir()]
    assert max(sizes) <= BYTES_MAX
    assert sum(sizes) <= ALL_BYTES_MAX


def test_the_page_shows_them_all() -> None:
    assert PAGE.read_text() == page(), "make screenshots writes it"


def test_every_mode_is_painted_small_large_and_in_ascii() -> None:
    names = {scene.name for scene in SCENES}
    for mode in MODES:
        assert {f"{mode}-80x24", f"{mode}-160x48", f"{mode}-80x24-ascii"} <= names
