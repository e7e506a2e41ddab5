"""Text that grows at its end, and is closed while it does."""

from textual.app import App, ComposeResult

from console.widgets.log_text import LogText


class Growing(App[None]):
    def compose(self) -> ComposeResult:
        yield LogText(max_lines=100)


async def test_its_width_is_known_when_it_is_written() -> None:
    app = Growing()
    async with app.run_test() as pilot:
        text = app.query_one(LogText)
        text.write_lines(["short", "x" * 300, "漢" * 3])
        await pilot.pause()
        assert text.virtual_size.width == 300
        assert text.line_count == 3


async def test_it_may_be_closed_right_behind_a_line() -> None:
    app = Growing()
    async with app.run_test() as pilot:
        text = app.query_one(LogText)
        text.write_line("x")
        removed = text.remove()
        text.write_line("y")
        await removed
        await pilot.pause()
        assert not app.query(LogText)
