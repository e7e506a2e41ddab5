"""What a person sees: also while something takes long, and when the terminal has gone."""

import io
import signal
import threading

import pytest

from installer.interruptions import outliving_terminal, unheard
from installer.terminal import Teller, waiting


class Gone(io.StringIO):
    """A terminal whose connection was lost."""

    tries = 0

    def write(self, _: str) -> int:
        self.tries += 1
        raise OSError(5, "Input/output error")


def test_a_terminal_that_has_gone_ends_nothing() -> None:
    out = Gone()
    tell = Teller(out=out)
    tell.line("one")
    tell.detail("two")
    assert out.tries == 1


def test_what_takes_long_says_that_it_goes_on() -> None:
    told: list[str] = []
    twice = threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 2:
            twice.set()

    with waiting(tell, "Backup", every_s=0.01):
        assert twice.wait(5)
    after = len(told)
    assert told[0] == "Backup: 0 s so far"
    with waiting(tell, "Short", every_s=60):
        pass
    assert len(told) == after  # the first has ended, the second said nothing


def test_a_lost_connection_is_not_heard_and_an_order_to_end_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with outliving_terminal():
        signal.raise_signal(signal.SIGHUP)
        with unheard():
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
