"""`cic console`."""

import contextlib
import gc
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Collection
from typing import Final

import click

from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import Home
from appliance.wire.unix import socket_address
from console.children import command
from console.profile import Profile, profile_of

_COLOUR_SYSTEMS: Final = {"16": "standard", "256": "256", "truecolor": "truecolor"}
_CONNECT_S: Final = 5.0
_LOCK_S_MIN: Final = 10
_PORT: Final = 8093


@click.command()
@click.option("--ascii", "ascii_only", is_flag=True, help="Nothing beyond ASCII on the screen.")
@click.option("--read-only", is_flag=True, help="Offer nothing that changes the site.")
@click.option("--theme", metavar="NAME", help="dark, light, contrast, colour-blind or terminal.")
@click.option(
    "--refresh",
    "refresh_s",
    type=click.FloatRange(0.5, 60.0),
    metavar="S",
    help="Seconds between pictures. Default 1; 2 on slow lines.",
)
@click.option(
    "--lock-after",
    "lock_after",
    metavar="TIME",
    help="Hide everything after so long without a key, as 10m; asks for a passphrase now.",
)
@click.option(
    "--web",
    is_flag=True,
    help="In a browser on this machine instead; from elsewhere through `ssh -L`.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=_PORT, help="Of --web. 0 takes any.")
@click.pass_obj
def console(
    invocation: Invocation,
    *,
    web: bool,
    port: int,
    ascii_only: bool,
    read_only: bool,
    theme: str | None,
    refresh_s: float | None,
    lock_after: str | None,
) -> None:
    """Run the site from this terminal: nodes, models, tenants, usage, logs, chat, operations."""
    if web:
        _require_running(invocation.home)
        _check(theme, lock_after)
        told = {"--theme": theme, "--refresh": refresh_s, "--lock-after": lock_after}
        options = [part for name, value in told.items() if value for part in (name, str(value))]
        flags = {"--ascii": ascii_only, "--read-only": read_only}
        options += [name for name, wanted in flags.items() if wanted]
        _serve_browsers(invocation.home, port, options)
        return
    profile = _profile(ascii_only=ascii_only, refresh_s=refresh_s)
    if profile.dumb:
        sys.exit(_print_status(invocation))
    _require_running(invocation.home)
    lock_after_s = None if lock_after is None else _seconds(lock_after)
    passphrase = "" if lock_after_s is None else _passphrase()
    _prepare(profile)
    gc.disable()  # nothing of what is loaded now is garbage, and looking for it takes time
    # Not before: Textual takes 0.25 s to load, and reads its settings when it is loaded.
    from console.app import ConsoleApp  # noqa: PLC0415
    from console.lock import Lock  # noqa: PLC0415
    from console.remembered import Remembered, keep, recall, remembered_file  # noqa: PLC0415
    from console.terminal import driver_for  # noqa: PLC0415
    from console.themes import DEFAULT, LOOKS  # noqa: PLC0415

    _require_look(theme, LOOKS)
    file = remembered_file()
    before, notice = recall(file)
    many_colours = profile.colours in ("256", "truecolor")
    usual = (before.look if before.look in LOOKS else DEFAULT) if many_colours else "terminal"
    app = ConsoleApp(
        invocation.home,
        profile,
        read_only=read_only,
        look=theme or usual,
        lock=Lock(lock_after_s, passphrase),
        notice=notice,
    )
    app.driver_class = driver_for(app.driver_class)
    gc.freeze()
    gc.enable()
    code = app.run(mouse=profile.mouse)
    look = before.look if theme or not many_colours else app.look
    with contextlib.suppress(OSError):  # the next time it begins as it came
        keep(file, Remembered(look))
    sys.exit(code or 0)


def _serve_browsers(home: Home, port: int, options: list[str]) -> None:
    """Each window gets a console with the other options of this one."""
    from console.web.running import serve  # noqa: PLC0415 (aiohttp takes its time to load)

    serve(command(home, ("console", *options)), home.config.name, port)


def _check(theme: str | None, lock_after: str | None) -> None:
    """Now: a browser would not show what a console says before it begins."""
    from console.themes import LOOKS  # noqa: PLC0415 (Textual takes its time to load)

    _require_look(theme, LOOKS)
    if lock_after is not None:
        _seconds(lock_after)


def _require_look(name: str | None, looks: Collection[str]) -> None:
    if name is not None and name not in looks:
        raise CommandError(
            f"There is no theme '{name}'.",
            next_step=f"Use one of {', '.join(looks)}.",
            exit_code=ExitCode.USAGE,
        )


def _seconds(text: str) -> float:
    """`90s`, `10m`, `1h`."""
    match = re.fullmatch(r"(\d{1,6})(s|m|h)", text.strip())
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3_600}[match[2]] if match else 0
    if seconds < _LOCK_S_MIN:
        raise CommandError(
            f"'{text}' is no time to lock after.",
            next_step=f"Write it as 90s, 10m or 1h; at least {_LOCK_S_MIN}s.",
            exit_code=ExitCode.USAGE,
        )
    return float(seconds)


def _passphrase() -> str:
    """Asked for twice, before the screen is taken; nothing shows while it is typed."""
    text: str = click.prompt(
        "Passphrase that opens the locked console",
        hide_input=True,
        confirmation_prompt=True,
        err=True,
    )
    return text


def _profile(*, ascii_only: bool, refresh_s: float | None) -> Profile:
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    device = os.ttyname(sys.stdin.fileno()) if is_terminal else ""
    return profile_of(
        os.environ,
        is_terminal=is_terminal,
        device=device,
        ascii_only=ascii_only,
        refresh_s=refresh_s,
    )


def _prepare(profile: Profile) -> None:
    """Textual takes these from the environment, once."""
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    if profile.colours in _COLOUR_SYSTEMS:
        os.environ["TEXTUAL_COLOR_SYSTEM"] = _COLOUR_SYSTEMS[profile.colours]
    if profile.line_speed_low:
        os.environ["TEXTUAL_FPS"] = "10"


class NothingThere(CommandError):
    """Nothing to look at. Its code is that of the commands in the same case."""

    def __init__(self, wire_code: str, message: str, next_step: str, exit_code: ExitCode) -> None:
        super().__init__(message, next_step=next_step, exit_code=exit_code)
        self.wire_code = wire_code


def _require_running(home: Home) -> None:
    """Refuse as the other commands do: a screen full of dashes would explain less."""
    cic = shlex.join(("cic", *home.arguments))
    try:
        if not home.config_file.exists():
            raise NothingThere(
                "unknown_home",
                f"There is no site in {home.config}.",
                f"Make one with `{cic} init`.",
                ExitCode.CONFIGURATION,
            )
        with socket.socket(socket.AF_UNIX) as trial:
            trial.settimeout(_CONNECT_S)
            trial.connect(socket_address(home.admin_socket))
    except PermissionError as error:
        raise NothingThere(
            "permission_denied",
            f"You may not use {error.filename or home.admin_socket}.",
            "Run it as the owner of that file, or as a member of its group.",
            ExitCode.UNREACHABLE,
        ) from error
    except OSError as error:
        raise NothingThere(
            "not_running",
            f"The appliance of {home.state} does not run.",
            f"Start it with `{cic} serve`.",
            ExitCode.UNREACHABLE,
        ) from error


def _print_status(invocation: Invocation) -> int:
    """Where nothing can be painted: what `cic status` prints."""
    return subprocess.call(command(invocation.home, ("status",)))
