"""The frame around the views: header, modes, footer, help, command line, lock, loss of the site."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from textual import events

from console.widgets.dialogs import TextDialog
from console.widgets.output import OutputDialog
from tests.fakes.console_pilot import Driven, driven

SIZES = [(80, 24), (160, 48)]
Opened = Callable[..., AbstractAsyncContextManager[Driven]]


@pytest.fixture
def console(tmp_path: Path) -> Opened:
    def opened(**how: Any) -> AbstractAsyncContextManager[Driven]:
        return driven(tmp_path / "home", **how)

    return opened


async def type_line(seen: Driven, line: str) -> None:
    await seen.press("colon")
    await seen.reads("Tab completes")
    await seen.press(*("space" if sign == " " else sign for sign in line))


async def test_header_and_footer_say_where_who_and_how_fresh(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        await seen.reads("ada admin")
        first, modes, *_ = seen.picture().split("\n")
        assert "gpubox-01" in first
        assert "19:22Z" in first
        assert modes.startswith("[1 Dash]")


@pytest.mark.parametrize("digit", list("12345678"))
async def test_every_mode_opens_and_is_marked(console: Opened, digit: str) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        await seen.press(digit)
        await seen.reads(f"[{digit} ")
        assert seen.app.mode == digit


async def test_p_holds_the_picture_and_lets_it_go_on(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        await seen.press("p")
        await seen.reads("PAUSED")
        await seen.press("p")
        await seen.reads("live 1s")


async def test_what_was_heard_stays_when_the_site_is_lost_and_it_comes_back(
    console: Opened,
) -> None:
    async with console() as seen:
        await seen.reads("gemma-2-9b")
        seen.site.faults.hang_up = True
        seen.site.tell()
        await seen.until(lambda: seen.app.trouble is not None, "the loss")
        assert "gemma-2-9b" in seen.picture()
        seen.app.store._heard_ns = 0  # long ago
        seen.app.refresh_footer()
        await seen.reads("STALE")
        assert "gemma-2-9b" in seen.picture()
        seen.site.faults.hang_up = False
        seen.app.feed.again()
        await seen.reads("live 1s")


async def test_help_lists_the_keys_of_what_is_there(console: Opened) -> None:
    async with console(mode="3") as seen:
        await seen.reads("N Deploy")
        await seen.press("question_mark")
        await seen.until(lambda: isinstance(seen.app.screen, TextDialog))
        text = seen.app.screen._text  # type: ignore[attr-defined]  # it is a TextDialog
        assert "cic deployment" in text
        assert "Filter" in text
        assert "Quit" in text
        await seen.press("escape", "escape", "escape")
        assert len(seen.app.screen_stack) == 1


async def test_a_viewer_is_offered_nothing_that_changes_the_site(console: Opened) -> None:
    async with console(mode="3", role="viewer") as seen:
        await seen.reads("ada viewer")
        await seen.reads("gemma-2-9b")
        assert "N Deploy" not in seen.picture()
        for key in ("N", "E", "X", "S", "D", "R", "I"):
            await seen.press(key)
            assert len(seen.app.screen_stack) == 1, key


async def test_too_small_a_terminal_is_told_so_and_grows_back(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        await seen.pilot.resize_terminal(60, 20)
        await seen.reads("80 columns")
        await seen.pilot.resize_terminal(80, 24)
        await seen.reads("gemma-2-9b")
        assert "80 columns" not in seen.picture()


async def test_the_ascii_profile_paints_nothing_beyond_ascii(console: Opened) -> None:
    async with console(ascii_only=True) as seen:
        for digit in "12345678":
            await seen.press(digit)
            await seen.reads(f"[{digit} ")
            strips = seen.app.screen._compositor.render_strips()
            filters = seen.app.get_line_filters()
            for strip in strips:
                for each in filters:
                    strip = strip.apply_filter(each, seen.app.styles.background)  # noqa: PLW2901 (as Textual does)
                assert strip.text.isascii(), strip.text


async def test_words_of_the_command_line_lead_to_modes_and_themes(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        await type_line(seen, "tenants")
        await seen.press("enter")
        await seen.until(lambda: seen.app.mode == "4")
        await type_line(seen, "theme contrast")
        await seen.press("enter")
        await seen.until(lambda: seen.app.look == "contrast")
        await type_line(seen, "theme puce")
        await seen.press("enter")
        await seen.reads("A theme is one of")
        await seen.press("escape")
        await type_line(seen, "serve")
        await seen.press("enter")
        await seen.reads("not run from here")


async def test_a_cic_command_runs_as_a_child_and_its_end_is_told(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        await type_line(seen, "ten")
        await seen.until(lambda: seen.app.commands.tree is not None, "the tree of commands")
        await seen.reads("tenant")
        await seen.press("escape")
        await type_line(seen, "cic nonsense")
        await seen.press("enter")
        await seen.reads("no command 'nonsense'")
        await seen.press("escape")
        await type_line(seen, "cic tenant list")
        await seen.press("enter")
        await seen.until(lambda: isinstance(seen.app.screen, OutputDialog))
        await seen.reads("exit code")
        await seen.press("escape")
        assert len(seen.app.screen_stack) == 1
        # What was typed comes back.
        await seen.press("colon")
        await seen.reads("Tab completes")
        await seen.press("up")
        await seen.reads("cic tenant list")


async def test_keys_that_arrive_together_are_carried_out_one_after_the_other(
    console: Opened,
) -> None:
    """`:` and a word in one piece, as a slow line or a macro sends them."""
    async with console(mode="3") as seen:
        await seen.reads("gemma-2-9b")
        for key in ("colon", *"theme", "space", *"light", "enter"):
            seen.app.post_message(events.Key(key, _character(key)))
        await seen.until(lambda: seen.app.look == "light", "the theme")
        for key in ("N", *"small", "escape", "4", "colon", *"nodes", "enter"):
            seen.app.post_message(events.Key(key, _character(key)))
        await seen.until(lambda: seen.app.mode == "2", "the nodes")
        assert len(seen.app.screen_stack) == 1


def _character(key: str) -> str | None:
    named = {"colon": ":", "space": " ", "enter": "\r", "escape": "\x1b"}
    return named.get(key, key)


async def test_a_burst_of_keys_in_the_command_line_breaks_nothing(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        for _ in range(6):
            await seen.press("colon", "n", "o", "d", "tab", "down", "up", "tab", "escape", "escape")
            await seen.press("colon", "colon", "enter", "question_mark", "escape", "q", "escape")
            if seen.app.return_code is not None or len(seen.app.screen_stack) > 1:
                break
        assert seen.app._exception is None


async def test_the_lock_hides_everything_until_its_passphrase(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("gemma-2-9b")
        await type_line(seen, "lock")
        await seen.press("enter")
        await seen.reads("Once more")
        await seen.press(*"sesame", "enter", *"sesame", "enter")
        await seen.reads("This console is locked")
        hidden = seen.picture()
        assert "gemma" not in hidden
        assert "gpubox" not in hidden
        await seen.press("q", "escape", "ctrl+c", "colon", "1", "enter")
        await seen.reads("That is not it")
        assert seen.app.locked
        assert seen.app.return_code is None
        seen.app.lock._shut_until_s = 0.0
        await seen.press(*"sesame", "enter")
        await seen.reads("gemma-2-9b")
        assert not seen.app.locked


async def test_it_locks_by_itself_when_no_key_was_pressed(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("gemma-2-9b")
        seen.app.lock.choose("sesame")
        seen.app.lock.after_s = 0.05
        await seen.reads("This console is locked")


async def test_slow_and_failing_answers_leave_the_frame_alive(console: Opened) -> None:
    async with console() as seen:
        await seen.reads("live 1s")
        for fault in ({"status": 500}, {"garbage": True}, {"status": 0, "garbage": False}):
            for name, value in fault.items():
                setattr(seen.site.faults, name, value)
            seen.app.feed.again()
            for digit in "12345678":
                await seen.press(digit)
                await seen.reads(f"[{digit} ")
        await seen.press("1")
        await seen.reads("gemma-2-9b")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", ["empty", "busy", "failed"])
async def test_the_dash_in_every_state(
    console: Opened, condition: str, size: tuple[int, int]
) -> None:
    async with console(size=size, condition=condition) as seen:
        await seen.reads("No deployments yet" if condition == "empty" else "gemma-2-9b")
        await seen.reads("live 1s")
        await seen.reads("ada admin")
        if condition != "empty":
            await seen.reads("▅▅▆▆▇▇████")
        if size[0] > 100:
            await seen.reads("Nothing is kept yet" if condition == "empty" else "1h ago")
        seen.check(f"dash-{condition}")


async def test_plus_and_a_digit_lead_to_a_part_of_the_dash(console: Opened) -> None:
    async with console(condition="failed") as seen:
        await seen.reads("live 1s")
        await seen.press("plus", "4")
        await seen.reads("A Acknowledge")
        await seen.press("plus", "1", "enter")
        await seen.until(lambda: seen.app.mode == "2")
        await seen.press("1", "3")
        assert seen.app.mode == "3"


async def test_the_first_steps_lead_through_an_empty_site(console: Opened) -> None:
    async with console(condition="empty") as seen:
        await seen.reads("i: the first steps")
        await seen.press("i")
        await seen.reads("A node and its GPUs")
        await seen.reads("N Add a node")
        await seen.press("j")
        await seen.reads("N Deploy")
        await seen.press("j")
        await seen.reads("N New tenant")
        await seen.press("N")
        await seen.reads("Who is billed.")
        await seen.press("escape", "escape")
        await seen.reads("+2 Engines")
