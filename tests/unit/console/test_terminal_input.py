"""Whatever bytes a terminal sends, what comes behind them is still read."""

import random

import pytest
from textual import events
from textual.drivers.headless_driver import HeadlessDriver
from textual.drivers.linux_driver import LinuxDriver

from console.terminal import Terminal, Typed, driver_for


def keys(typed: Typed, *pieces: bytes) -> list[str]:
    return [
        event.key
        for piece in pieces
        for event in typed.take(piece)
        if isinstance(event, events.Key)
    ]


@pytest.mark.parametrize(
    "noise",
    [
        b"\xff",
        b"\xff\xfe\x80",
        b"\xed\xa0\x80",  # half of a surrogate pair
        b"\x1b[99999999999u",  # a character beyond all characters
        b"\x1b[" + b"9" * 5_000 + b"u",  # a number that no int is made of
        b"\x1b[99999999999~",
        b"\x1b[<" + b"9" * 5_000 + b";1;1M",
    ],
)
def test_what_is_no_key_ends_nothing(noise: bytes) -> None:
    typed = Typed()
    assert keys(typed, b"j" + noise + b"\x1b[B", b"q")[-2:] == ["down", "q"]


def test_a_character_in_two_pieces_is_one_key() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert keys(Typed(), b"a" + first, second + b"b") == ["a", "é", "b"]


def test_a_sequence_in_pieces_is_one_key() -> None:
    assert keys(Typed(), b"\x1b", b"[", b"B") == ["down"]


COLOURED = b"\x1b[200~one \x1b[31mD\x1b[0m \xff\x1b[X\x07 two\r\nthree\x1b[201~"
PLAIN = "one D \ufffd two\nthree"


def test_a_paste_with_escapes_in_it_types_nothing() -> None:
    (paste,) = Typed().take(COLOURED)
    assert isinstance(paste, events.Paste)
    assert paste.text == PLAIN


@pytest.mark.parametrize("at", range(1, len(COLOURED)))
def test_a_paste_in_two_pieces_is_one(at: int) -> None:
    typed = Typed()
    made = [*typed.take(COLOURED[:at]), *typed.tick(), *typed.take(COLOURED[at:] + b"j")]
    assert [event.text for event in made if isinstance(event, events.Paste)] == [PLAIN]
    assert [event.key for event in made if isinstance(event, events.Key)] == ["j"]


def test_keys_around_a_paste_are_keys() -> None:
    made = list(Typed().take(b"ab\x1b[200~X\x1b[201~c\x1b[200~\x1b[201~d"))
    told = [event.key if isinstance(event, events.Key) else event.text for event in made]  # type: ignore[attr-defined]  # a paste
    assert told == ["a", "b", "X", "c", "", "d"]


def test_a_paste_without_an_end_ends_when_it_is_silent() -> None:
    now_s = 10.0
    typed = Typed(lambda: now_s)
    assert list(typed.take(b"\x1b[200~some")) == []
    now_s += 0.9
    assert list(typed.tick()) == []
    assert list(typed.take(b" more")) == []
    now_s += 1.1
    (paste,) = typed.tick()
    assert isinstance(paste, events.Paste)
    assert paste.text == "some more"
    assert keys(typed, b"j") == ["j"]


def test_a_paste_beyond_all_measure_is_cut_and_ends() -> None:
    typed = Typed()
    assert list(typed.take(b"\x1b[200~")) == []
    for _ in range(3):
        assert list(typed.take(b"x" * 400_000)) == []
    (paste,) = typed.take(b"y\x1b[201~")
    assert isinstance(paste, events.Paste)
    assert paste.text == "x" * 1_000_000


@pytest.mark.parametrize(
    "sequence",
    [
        b"\x1b[X",
        b"\x1b[1;9X",
        b"\x1b[31m",
        b"\x1b[?62;1c",
        b"\x1b]52;c;QQ==\x07",
        b"\x1bP1$r0m\x1b\\",
    ],
)
def test_a_sequence_that_means_nothing_types_nothing(
    sequence: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = Typed()
    made = [*typed.take(sequence)]
    monkeypatch.setattr("textual._parser.get_time", lambda: float("inf"))  # its patience is over
    assert [*made, *typed.tick()] == []
    assert keys(typed, b"j") == ["j"]


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        (b"\x1b[A", "up"),
        (b"\x1b[1;5D", "ctrl+left"),
        (b"\x1b[Z", "shift+tab"),
        (b"\x1bOP", "f1"),
        (b"\x1b[[A", "f1"),  # Linux console
        (b"\x1b[11~", "f1"),
        (b"\x1b[5~", "pageup"),
        (b"\x1b[H", "home"),
        (b"\x1b[88u", "X"),  # kitty
        (b"\x1b\x1b[B", "down"),
    ],
)
def test_keys_of_terminals_are_keys(sent: bytes, key: str) -> None:
    assert keys(Typed(), sent)[-1:] == [key]


def test_the_mouse_is_told_in_its_place() -> None:
    made = list(Typed().take(b"\x1b[<0;10;5M\x1b[<0;10;5m"))
    assert [type(event) for event in made] == [events.MouseDown, events.MouseUp]
    assert [(event.x, event.y) for event in made if isinstance(event, events.MouseEvent)] == [
        (9, 4),
        (9, 4),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_in_any_pieces_are_read(seed: int) -> None:
    chance, typed = random.Random(seed), Typed()
    for _ in range(300):
        list(typed.take(chance.choice((b"\x1b[", b"\x1b", b"\x1b]", b"")) + chance.randbytes(9)))
        list(typed.tick())
    list(typed.take(b"\x1b[201~\x1b\\\x07"))  # what may be open is closed
    assert keys(typed, *[b"j"] * 600)[-1:] == ["j"]


def test_only_the_driver_of_terminals_is_replaced() -> None:
    assert driver_for(LinuxDriver) is Terminal
    assert driver_for(HeadlessDriver) is HeadlessDriver


class Frame:
    """As much of an app as its driver needs."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def refresh(self) -> None:
        """Paints all of it."""

    def call_later(self, what: object) -> None:
        self.asked.append(what)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a terminal is sent."""
    out: list[str] = []
    monkeypatch.setattr(LinuxDriver, "__init__", lambda self, app: setattr(self, "_app", app))
    monkeypatch.setattr(LinuxDriver, "write", lambda _self, data: out.append(data))
    monkeypatch.setattr(LinuxDriver, "_get_terminal_size", lambda _self: (80, 24))
    return out


ROW = "\x1b[3;1Hready\x1b[1;1H"


def test_a_line_is_sent_once_until_another_program_wrote_over_it(sent: list[str]) -> None:
    frame = Frame()
    made = Terminal(frame)
    made.write(ROW)
    made.write(ROW)
    assert sent == [ROW, ""]
    made.process_message(events.Key("ctrl+l", None))
    assert frame.asked == [frame.refresh]
    made.write(ROW)
    assert "ready" in sent[-1]


def test_while_its_size_changes_all_is_sent(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Terminal(Frame())
    made.write(ROW)
    monkeypatch.setattr(LinuxDriver, "_get_terminal_size", lambda _self: (100, 30))
    made.write(ROW)
    made.write(ROW)
    assert all("ready" in data for data in sent)
