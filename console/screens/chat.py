"""7 Chat: ask a deployment through the endpoint, as the administrator or with a key."""

from __future__ import annotations

from contextlib import aclosing
from time import monotonic
from typing import Any, ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Input

from appliance.wire.access import reaches
from appliance.wire.chat import ChatPass, ChatPassAsk
from appliance.wire.stream import Topic
from console.cells import Cell
from console.client import AdminError, decoded
from console.endpoint import Answer, Question, ask
from console.store import Changes, Store
from console.view import View
from console.widgets.line import wrapped
from console.widgets.log_text import LogText
from console.widgets.panel import Lines, Panel
from console.words import MISSING, count, milliseconds

# Text that streams is painted so often and no oftener.
_PAINT_S: Final = 0.1
_TURNS_MAX: Final = 40
_PASS_S: Final = 600.0  # then another is asked for; they last a little longer


class ChatView(View):
    """What is said is kept in memory only, and goes with the console. So does the key."""

    DEFAULT_CSS: ClassVar[str] = """
    ChatView LogText { height: 1fr; scrollbar-size-vertical: 1; background: $background; }
    ChatView #facts { height: 2; }
    ChatView Input { border: none; height: 1; padding: 0 1; background: $panel; }
    ChatView Input:focus { border: none; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("n", "model", "Another deployment"),
        Binding("k", "key", "Ask with a key"),
        Binding("o", "own", "Ask as the administrator"),
        Binding("enter,a", "ask", "Ask"),
        Binding("c", "clear", "Begin anew"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._models: list[str] = []
        self._model = ""
        self._key = ""
        self._pass: ChatPass | None = None  # to ask as the administrator
        self._passed = ("", 0.0)  # the model it is for, and when it was given
        self._said: list[dict[str, str]] = []
        self._answer: Answer | None = None
        self._painted = ""  # of the answer that comes
        self._script: list[tuple[str, str]] = []  # who, and what was said
        self._state = ""
        self._asker_shown = False
        self._told = LogText(auto_scroll=True)
        self._facts = Lines(id="facts")
        self._secret = Input(
            placeholder="an API key: clsk_…  Enter keeps it for this console alone",
            password=True,
            id="secret",
        )
        self._line = Input(placeholder="ask something; Enter sends, Esc leaves the line", id="line")

    def compose(self) -> ComposeResult:
        yield Panel("Chat", self._facts, self._told, self._secret, self._line)

    def home(self) -> Widget | None:
        return self._told

    def topics(self) -> frozenset[Topic]:
        return frozenset({"deployments"})

    def update(self, store: Store, changes: Changes) -> None:
        if not changes.touches("deployments"):
            return
        rows = store.table("deployments").values()
        self._models = sorted(str(row.get("name")) for row in rows if row.get("state") == "ready")
        if self._model not in self._models:
            self._model = self._models[0] if self._models else ""
        self._show_facts()

    def reveal(self, part: str) -> None:
        if part in self._models:
            self._model = part
            self._show_facts()

    def subject(self) -> Any:
        return list(self._said) or None

    # Keys.

    def on_mount(self) -> None:
        self._secret.display = False
        self.set_interval(_PAINT_S, self._paint)

    def action_model(self) -> None:
        if self._models:
            at = self._models.index(self._model) if self._model in self._models else -1
            self._model = self._models[(at + 1) % len(self._models)]
        self._show_facts()

    def action_key(self) -> None:
        self._secret.display = True
        self._secret.focus()

    def action_own(self) -> None:
        self._key = ""
        self._show_facts()

    def action_ask(self) -> None:
        if self._key or self._may_ask:
            self._line.focus()
        else:
            self.action_key()

    def action_clear(self) -> None:
        self.workers.cancel_group(self, "answer")
        self._said, self._script, self._answer, self._painted, self._state = [], [], None, "", ""
        self._told.clear()
        self._show_facts()

    def on_key(self, event: events.Key) -> None:
        """Escape stops the answer, or leaves the line; at last it is the frame's."""
        if event.key != "escape":
            return
        if self._answer is not None and self._answer.took_s is None:
            self.workers.cancel_group(self, "answer")
            self._end("stopped")
        elif not isinstance(self.app.focused, Input):
            return
        self._secret.display = False
        self._told.focus()
        event.stop()
        event.prevent_default()

    @on(Input.Submitted, "#secret")
    def _keep_key(self, event: Input.Submitted) -> None:
        event.stop()
        self._key = event.value.strip()
        self._secret.value = ""
        self._secret.display = False
        self._line.focus()
        self._show_facts()

    @on(Input.Submitted, "#line")
    def _send(self, event: Input.Submitted) -> None:
        event.stop()
        text = event.value.strip()
        if not text or (self._answer is not None and self._answer.took_s is None):
            return
        if not (self._key or self._may_ask) or not self._model:
            missing = "no key: k takes one" if self._model else "no deployment is ready"
            self.notify(f"There is {missing}.")
            return
        self._line.value = ""
        self._script += [("you", text), (self._model, "")]
        self._said = [*self._said, {"role": "user", "content": text}][-_TURNS_MAX:]
        self._answer, self._painted, self._state = Answer(0.0), "", "waiting for the first token"
        self._redraw()
        self._show_facts()
        self.load(self._ask(), name="answer")

    async def _ask(self) -> None:
        site = self.store.site or {}
        question = Question(self._model, tuple(self._said))
        try:
            key, where = self._key, str(site.get("endpoint"))
            if not key:
                given = await self._give_pass()
                key, where = given.key, given.endpoint
            async with aclosing(ask(where, key, question)) as answers:
                async for answer in answers:
                    self._answer = answer
                    self._state = "answering"
        except AdminError as error:
            self._end(error.message)
            return
        self._end(self._answer.refused if self._answer else "")

    @property
    def _may_ask(self) -> bool:
        """Whether this account may ask without a key."""
        return reaches(self.role, "operator")

    async def _give_pass(self) -> ChatPass:
        """A pass for this deployment; the one at hand, while it lasts."""
        model, given_s = self._passed
        now_s = monotonic()
        if self._pass is None or model != self._model or now_s - given_s > _PASS_S:
            body = ChatPassAsk(model=self._model)
            async with aclosing(
                self.admin.lines("/v1/chat-passes", method="POST", body=body)
            ) as lines:
                content = b"".join([line async for line in lines])
            self._pass, self._passed = decoded(content, ChatPass), (self._model, now_s)
        return self._pass

    def _end(self, why: str) -> None:
        self._paint()
        answer = self._answer
        if answer is not None:
            if answer.took_s is None:
                answer.took_s = 0.0
            if answer.text:
                self._said.append({"role": "assistant", "content": answer.text})
        if why:
            self._script.append(("!", why))
        self._redraw()
        self._state = why or "done"
        self._show_facts()

    # What is shown.

    def _paint(self) -> None:
        """What came since the last time."""
        if self._asker_shown != self._may_ask:  # the appliance said who sits here
            self._show_facts()
        answer = self._answer
        if answer is None or answer.text == self._painted or not self._script:
            return
        self._painted = answer.text
        self._script[-1] = (self._script[-1][0], answer.text)
        self._redraw()
        self._show_facts()

    def _redraw(self) -> None:
        """All of it anew: a word that goes on may belong on the next line."""
        width = max(20, self._told.size.width - 3)
        lines: list[str] = []
        for who, text in self._script[-2 * _TURNS_MAX :]:
            lines += [f"{who}:"]
            lines += [
                f"  {part}" for each in _clean(text).split("\n") for part in wrapped(each, width)
            ]
        self._told.clear()
        self._told.write_lines(lines)

    def on_resize(self) -> None:
        self._redraw()

    def _show_facts(self) -> None:
        answer = self._answer
        self._asker_shown = self._may_ask
        first = [
            Cell("  deployment "),
            Cell(self._model or "none is ready", "accent" if self._model else "warn"),
            Cell("   asked with "),
        ]
        if self._key:
            first += [Cell(_shown(self._key)), Cell(", counted as its use", "dim")]
        elif self._may_ask:
            whose = self._pass.tenant if self._pass else "site-console"
            first += [Cell("your account"), Cell(f", counted as {whose}", "dim")]
        else:
            first += [Cell("no key yet: k", "warn")]
        second = [Cell(f"  {self._state}", "dim")]
        if answer is not None and answer.first_token_s is not None:
            rate = answer.tokens_per_s
            second += [
                Cell(f"  first token {milliseconds(answer.first_token_s * 1000)}"),
                Cell(f"  {count(answer.input_tokens)} in, {count(answer.output_tokens)} out"),
                Cell(f"  {MISSING if rate is None else f'{rate:.1f}'} tokens/s"),
            ]
        self._facts.show([first, second])


def _clean(text: str) -> str:
    """Nothing that a model says commands the terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


def _shown(key: str) -> str:
    return f"{key[:14]}…"
