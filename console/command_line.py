"""What may be typed behind `:`: words of the console, and any `cic` command. Pure."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from console.command_tree import Command, Option

# Word -> the digit of a mode and the part of it to show, as k9s has its resources.
PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "dash": ("1", ""),
    "fleet": ("2", ""),
    "nodes": ("2", "nodes"),
    "gpus": ("2", "gpus"),
    "models": ("3", "models"),
    "deployments": ("3", "deployments"),
    "requests": ("3", "requests"),
    "tenants": ("4", ""),
    "keys": ("4", "keys"),
    "usage": ("5", ""),
    "sync": ("5", "sync"),
    "manifests": ("5", "manifests"),
    "logs": ("6", ""),
    "audit": ("6", "audit"),
    "alerts": ("6", "alerts"),
    "events": ("6", "events"),
    "chat": ("7", ""),
    "ops": ("8", ""),
    "backups": ("8", "backups"),
    "certificates": ("8", "certificates"),
    "checks": ("8", "checks"),
    "diagnostics": ("8", "diagnostics"),
    "settings": ("8", "settings"),
    "tasks": ("8", "tasks"),
    "versions": ("8", "version"),
}
# Word -> what it does.
DEEDS: Final[Mapping[str, str]] = {
    "help": "the keys that fit now",
    "lock": "hide everything until a passphrase is typed",
    "pause": "hold the picture still, or let it go on",
    "quit": "leave the console; what is at work goes on",
    "theme": "change the colours",
    "wizard": "from nothing to the first answer, step by step",
}
_QUITS: Final = ("q", "q!", "quit", "exit")

# Why a command is not run from here: by its words, the longest that fits.
_NOT_HERE: Final[Mapping[tuple[str, ...], str]] = {
    ("serve",): "It is the appliance itself, and runs until it is stopped. Start it in a terminal.",
    ("demo",): "It starts another site and runs until it is stopped. Start it in a terminal.",
    ("agent",): "It runs engines until it is stopped. Start it as a service or in a terminal.",
    ("console",): "This is the console.",
    ("control-plane", "serve"): "It runs until it is stopped. Start it in a terminal.",
}
# Of the words above, what stands behind them that is over in a moment.
_HERE: Final = frozenset({("agent", "join"), ("agent", "forget-gpu")})
# A command whose last word is one of these changes nothing, whatever its options.
_READING: Final = frozenset(
    {
        *("catalogue", "completion", "events", "explain", "history", "list", "log"),
        *("logs", "plan", "public-key", "show", "status", "top", "usage", "verify", "prove"),
        *("diff", "doctor", "dumps", "check"),
    }
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`line` is the whole line when it is taken; `shown` is the word and `what` tells of it."""

    line: str
    shown: str
    what: str = ""


@dataclass(frozen=True, slots=True)
class Go:
    digit: str
    part: str


@dataclass(frozen=True, slots=True)
class Deed:
    name: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A `cic` command. `asks`: it wants to be told that it may, and what is then to be typed."""

    argv: tuple[str, ...]
    reads: bool
    asks: str = ""


@dataclass(frozen=True, slots=True)
class No:
    why: str


Meaning = Go | Deed | Run | No


def meaning(line: str, tree: Command | None, *, read_only: bool) -> Meaning | None:
    """What a line means; None for an empty one."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        return No(f"A quote is left open: {error}.")
    if not words:
        return None
    explicit = words[0] == "cic"
    if explicit:
        del words[0]
        if not words:
            return None
    elif (own := _own(words)) is not None:
        return own
    return _command(words, tree, read_only=read_only)


def _own(words: Sequence[str]) -> Meaning | None:
    word = words[0].lower()
    if len(words) == 1 and word in PLACES:
        return Go(*PLACES[word])
    if word in _QUITS:
        return Deed("quit")
    if word in DEEDS:
        return Deed(word, " ".join(words[1:]))
    if len(words) == 1 and word.isdigit() and "1" <= word <= "8":
        return Go(word, "")
    return None


def _command(words: list[str], tree: Command | None, *, read_only: bool) -> Meaning:
    if any(word == "--home" or word.startswith("--home=") for word in words):
        return No("This console is of one site: leave --home out.")
    path, rest, command = _found(words, tree)
    if tree is not None and command is tree and rest and not rest[0].startswith("-"):
        return No(f"There is no command '{rest[0]}'. `:help` and Tab tell what there is.")
    why = _not_here(path)
    if why and "--help" not in rest:
        return No(f"`cic {' '.join(path)}` is not run from here. {why}")
    reads = "--help" in rest or _reads(path)
    if read_only and tree is None:
        return No("The commands are still being learnt: try again in a moment.")
    if read_only and not reads:
        return No(f"This console is read-only, and `cic {' '.join(words)}` may change the site.")
    asks = ""
    takes_yes = command is not None and command.option("--yes") is not None
    if takes_yes and "--yes" not in rest and "--help" not in rest:
        named = [word for word in rest if not word.startswith("-")]
        asks = named[0] if named else path[-1]
        words = [*words, "--yes"]
    return Run(tuple(words), reads, asks)


def _found(
    words: Sequence[str], tree: Command | None
) -> tuple[tuple[str, ...], list[str], Command | None]:
    """The words that name a command, the rest, and the command as far as the tree is known."""
    at = tree
    path: list[str] = []
    rest = list(words)
    while rest and rest[0] == "--json":
        rest.pop(0)
    while rest and not rest[0].startswith("-"):
        if at is None:
            if len(path) == 2:
                break
        elif (inner := at.named(rest[0])) is None:
            break
        else:
            at = inner
        path.append(rest.pop(0))
    return tuple(path), rest, at


def _not_here(path: tuple[str, ...]) -> str:
    if path[:2] in _HERE:
        return ""
    return next((why for words, why in _NOT_HERE.items() if path[: len(words)] == words), "")


def _reads(path: tuple[str, ...]) -> bool:
    return bool(path) and path[-1] in _READING


def suggestions(
    line: str, tree: Command | None, names: Mapping[str, Sequence[str]], looks: Sequence[str]
) -> list[Suggestion]:
    """What the last word may become. `names`: what is called how, by the noun of the command."""
    before, word = _last_word(line)
    done = before.split()
    if not done:
        return _first_words(word, tree)
    if done == ["theme"]:
        return _matching(before, word, [(look, "") for look in looks])
    if done[0] == "cic":
        done = done[1:]
    if tree is None:
        return []
    path, rest, command = _found(done, tree)
    if command is None:
        return []
    return _matching(before, word, _next_words(command, path, rest, word, names))


def _last_word(line: str) -> tuple[str, str]:
    head, blank, word = line.rpartition(" ")
    return head + blank, word


def _first_words(word: str, tree: Command | None) -> list[Suggestion]:
    found = [(name, f"mode {digit}") for name, (digit, _part) in PLACES.items()]
    found += list(DEEDS.items())
    taken = {name for name, _ in found}
    commands = tree.commands if tree else ()
    found += [(each.name, each.what) for each in commands if each.name not in taken]
    return _matching("", word, sorted(found))


def _next_words(
    command: Command,
    path: tuple[str, ...],
    rest: Sequence[str],
    word: str,
    names: Mapping[str, Sequence[str]],
) -> list[tuple[str, str]]:
    last = command.option(rest[-1]) if rest else None
    if last is not None and last.takes:
        return _values(last, names, last.names[0].lstrip("-"))
    if word.startswith("-"):
        return [
            (option.names[0], option.what)
            for option in command.options
            if not set(option.names) & set(rest)
        ]
    if command.commands:
        return [(each.name, each.what) for each in command.commands]
    given = _positional(command, rest)
    if given < len(command.arguments):
        found = _values(command.arguments[given], names, path[0] if path else "")
        if found:
            return found
    missing = [
        option
        for option in command.options
        if option.required and not set(option.names) & set(rest)
    ]
    return [(option.names[0], option.what) for option in missing or command.options]


def _positional(command: Command, rest: Sequence[str]) -> int:
    """How many of the words behind a command are arguments of it."""
    number, skip = 0, False
    for word in rest:
        if skip:
            skip = False
        elif word.startswith("-"):
            option = command.option(word)
            skip = option is not None and bool(option.takes)
        else:
            number += 1
    return number


def _values(option: Option, names: Mapping[str, Sequence[str]], noun: str) -> list[tuple[str, str]]:
    if option.choices:
        return [(choice, "") for choice in option.choices]
    return [(shlex.quote(name), "") for name in names.get(noun, ())]


def _matching(before: str, word: str, found: Sequence[tuple[str, str]]) -> list[Suggestion]:
    """Those that begin as typed first, then those that have it within."""
    low = word.lower()
    starts = [each for each in found if each[0].lower().startswith(low)]
    within = [each for each in found if low in each[0].lower() and each not in starts]
    return [Suggestion(f"{before}{name} ", name, what) for name, what in (*starts, *within)]
