"""What a form is made of: a button, a choice and a toggle of one line each."""

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Input

from console.actions import Field

_CHOICES_IN_A_LINE: Final = 7


class Press(Widget):
    """A button of one line: Enter or Space presses it."""

    can_focus = True
    DEFAULT_CSS: ClassVar[str] = """
    Press { width: auto; height: 1; margin: 0 2 0 0; }
    Press:focus { text-style: bold reverse; }
    Press.-off { text-style: dim; }
    """

    class Pressed(Message):
        def __init__(self, press: "Press") -> None:
            super().__init__()
            self.press = press

    def __init__(self, label: str, *, name: str) -> None:
        super().__init__(name=name)
        self.label = label

    def render(self) -> Text:
        return Text(f"[ {self.label} ]")

    def relabel(self, label: str) -> None:
        self.label = label
        self.refresh(layout=True)

    def on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "space"):
            event.stop()
            self.post_message(self.Pressed(self))

    def on_click(self) -> None:
        self.post_message(self.Pressed(self))


class Choice(Widget):
    """One of a few, in one line: left, right and Space move on."""

    can_focus = True
    DEFAULT_CSS: ClassVar[str] = """
    Choice { width: 1fr; height: 1; }
    Choice:focus { text-style: reverse; }
    """

    class Changed(Message):
        pass

    def __init__(self, choices: Sequence[str], value: str, *, name: str) -> None:
        super().__init__(name=name)
        self._choices = tuple(choices)
        self._at = self._choices.index(value) if value in self._choices else 0

    @property
    def value(self) -> str:
        return self._choices[self._at] if self._choices else ""

    def render(self) -> Text:
        return Text(f"◂ {self.value or '(none)'} ▸  {self._at + 1} of {len(self._choices)}")

    def on_key(self, event: events.Key) -> None:
        step = {"left": -1, "right": 1, "space": 1}.get(event.key)
        if step is not None and self._choices:
            event.stop()
            self._move(step)

    def on_click(self) -> None:
        self._move(1)

    def _move(self, step: int) -> None:
        self._at = (self._at + step) % len(self._choices)
        self.refresh()
        self.post_message(self.Changed())


class Toggle(Widget):
    """Yes or no: Space changes it."""

    can_focus = True
    DEFAULT_CSS: ClassVar[str] = """
    Toggle { width: 1fr; height: 1; }
    Toggle:focus { text-style: reverse; }
    """

    def __init__(self, value: str, *, name: str) -> None:
        super().__init__(name=name)
        self._on = bool(value)

    @property
    def value(self) -> str:
        return "yes" if self._on else ""

    def render(self) -> Text:
        return Text("[x] yes" if self._on else "[ ] no")

    def on_key(self, event: events.Key) -> None:
        if event.key in ("space", "left", "right"):
            event.stop()
            self._turn()

    def on_click(self) -> None:
        self._turn()

    def _turn(self) -> None:
        self._on = not self._on
        self.refresh()
        self.post_message(Choice.Changed())


def widget_of(field: Field) -> Widget:
    """What a field is answered with; its id is `field-<name>`."""
    name = f"field-{field.name}"
    widget: Widget
    if field.kind == "toggle":
        widget = Toggle(field.default, name=field.name)
    elif field.kind == "choice" and len(field.choices) <= _CHOICES_IN_A_LINE:
        widget = Choice(field.choices, field.default, name=field.name)
    else:
        widget = Input(
            field.default,
            name=field.name,
            password=field.kind == "secret",
            select_on_focus=False,
            suggester=SuggestFromList(field.choices, case_sensitive=False)
            if field.choices
            else None,
        )
    widget.id = name
    return widget


def value_of(widget: Widget) -> str:
    """What was answered, "" for nothing."""
    if isinstance(widget, Toggle | Choice):
        return widget.value
    assert isinstance(widget, Input)
    return widget.value.strip()
