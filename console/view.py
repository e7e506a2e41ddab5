"""What fills the room between the mode bar and the footer. A mode is a stack of views."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual._styles_cache import StylesCache
from textual.containers import Vertical

from console.actions import Action
from console.store import Changes, Store
from console.widgets.panel import Panel

if TYPE_CHECKING:
    from textual.dom import DOMNode
    from textual.widget import Widget

    from appliance.wire.access import AccessRole
    from appliance.wire.stream import Topic
    from console.app import ConsoleApp
    from console.client import Admin


class Reading(Awaitable[None]):
    """What a worker awaits. It may be replaced before it began: then `close` it."""

    def __init__(
        self,
        reading: Coroutine[Any, Any, None],
        guarded: Callable[[Awaitable[None]], Awaitable[None]],
    ) -> None:
        self._reading = reading
        self._guarded = guarded

    def __await__(self) -> Generator[Any, None, None]:
        return self._guarded(self._reading).__await__()

    def begin(self, node: DOMNode, name: str) -> None:
        """Beside the screen; the one of the same name that was there ends."""
        worker = node.run_worker(self, name=name, group=name, exclusive=True, exit_on_error=True)
        task = worker._task
        if task is not None:
            task.add_done_callback(lambda _: self._reading.close())


def forget_what_is_gone() -> None:
    """Textual would keep the painted lines of up to 1,024 widgets that are not there any more."""
    StylesCache.get_inner_outer.cache_clear()


class View(Vertical):
    """Enter opens one on top (`self.console.open(view)`), Esc closes it again.

    A view is told of the site only while it is looked at: `update` with everything changed when it
    comes to the top, then with what each Tick changed. It reads anything else with `load`.
    """

    DEFAULT_CSS: ClassVar[str] = "View { height: 1fr; }"
    title: str = ""  # its part of the breadcrumb; "" for the root of a mode

    def topics(self) -> frozenset[Topic]:
        """Of the live stream, what it needs while it is on top."""
        return frozenset()

    def update(self, store: Store, changes: Changes) -> None:
        """Show what is different. Called on the event loop; must not wait."""

    def shown(self) -> None:
        """It came to the top: the place to `load` what the stream does not bring."""

    def actions(self) -> Sequence[Action]:
        """What can be done to what is selected now, most useful first."""
        return ()

    def subject(self) -> Any:
        """What `y` copies and `w` writes: JSON of what is selected, or of the whole view."""
        return None

    def reveal(self, part: str) -> None:
        """Show a part of the view by its name; a name it does not know changes nothing."""

    def home(self) -> Widget | None:
        """What gets the keyboard when the view comes to the top."""
        for widget in self.query("*"):
            if widget.focusable:
                return widget
        return None

    # What views use.

    def panel(self, selector: str = "Panel") -> Panel:
        """For what runs with every Tick: `query_one` keeps an entry for each change of the tree."""
        return self.query(selector).first(Panel)

    @property
    def console(self) -> ConsoleApp:
        from console.app import ConsoleApp  # noqa: PLC0415 (it imports this module)

        app = self.app
        assert isinstance(app, ConsoleApp)
        return app

    @property
    def store(self) -> Store:
        return self.console.store

    @property
    def admin(self) -> Admin:
        return self.console.admin

    @property
    def role(self) -> AccessRole:
        """Of who sits here; "viewer" until the appliance said so."""
        return self.console.role

    def load(self, reading: Coroutine[Any, Any, None], *, name: str = "load") -> None:
        """Run it beside the screen. A second one of the same name replaces the first; all end when
        the view goes. An AdminError is shown as a notice."""
        Reading(reading, self.console.guarded).begin(self, name)

    def selection_changed(self) -> None:
        """The footer may have other actions now."""
        self.console.refresh_footer()
