"""`cic init` and `cic serve`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import msgspec

from appliance import lock
from appliance.admin.peer import account
from appliance.commands.context import Refused, cic_line, require_site
from appliance.commands.output import print_json
from appliance.domain.clock import SystemClock
from appliance.registry.names import check_name
from appliance.registry.registry import initialise
from appliance.security.secrets import create_all, load_all
from appliance.settings import Settings, load
from appliance.sync.identity import establish
from appliance.wire.command import ExitCode, Invocation
from appliance.wire.home import Home

_FOLDER_MODE: Final = 0o750
_CONFIG_MODE: Final = 0o640
_NAME_CHARS_MAX: Final = 64


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where clients reach the endpoint.")
@click.option("--name", help="The site's name, for people.")
@click.option("--region", help="The region of this site.")
@click.pass_obj
def init(invocation: Invocation, listen: str | None, name: str | None, region: str | None) -> None:
    """Make a site in this home: settings, secrets, registry.

    Doing it again completes what is missing and changes nothing else.
    """
    home = invocation.home
    given = {"gateway.listen": listen, "site.name": name, "site.region": region}
    check_given(given)
    made: list[str] = []
    with writing(home):
        for folder in dict.fromkeys((home.config, home.state, home.run, home.logs, home.models)):
            if not folder.exists():
                folder.mkdir(mode=_FOLDER_MODE, parents=True)
                made.append(str(folder))
        if home.config_file.exists():
            refuse_other_values(home, given)
        else:
            write_config(home.config_file, given)
            made.append(str(home.config_file))
        settings = load(home.config_file, {})
        if home.registry_file.exists():
            load_all(home.secrets)  # new ones would make every key of this site useless
        else:
            made += [str(home.secrets), str(home.registry_file)]
            create_all(home.secrets)
        if not home.ledger_file.exists():
            made.append(str(home.ledger_file))
        establish(home.secrets, home.ledger_file)
        initialise(
            home.registry_file,
            actor=account(os.getuid()),
            region=settings.site.region,
            clock=SystemClock(),
        )
    print_site(invocation, settings, made)


@click.command()
@click.option("--with-agent", is_flag=True, help="Also run the agent of this host.")
@click.option("--listen", metavar="HOST:PORT", help="Instead of the settings' gateway.listen.")
@click.pass_obj
def serve(invocation: Invocation, listen: str | None, *, with_agent: bool) -> None:
    """Serve the endpoint until SIGTERM or Ctrl-C; then finish what is in flight.

    Prints `ready http://HOST:PORT/v1` when requests are taken.
    """
    home = invocation.home
    _finish_restore(home)
    require_site(home)
    settings = load(home.config_file, os.environ)
    if listen is not None:
        check_listen(listen)
        gateway = msgspec.structs.replace(settings.gateway, listen=listen)
        settings = msgspec.structs.replace(settings, gateway=gateway)
    from appliance.main import run  # noqa: PLC0415 (`cic init` need not load the whole appliance)

    with writing(home):
        run(home, settings, with_agent=with_agent)


def _finish_restore(home: Home) -> None:
    """What a restore that was cut off had left to do is done before anything is read."""
    from appliance.backup.restoring import PLAN, finish  # noqa: PLC0415 (hardly ever needed)

    if (home.state / PLAN).exists():
        with lock.held(home.lock_file):
            finish(home)


def check_given(given: dict[str, str | None]) -> None:
    """Raises CommandError or InvalidValue for a value that no site can have."""
    if given["gateway.listen"] is not None:
        check_listen(given["gateway.listen"])
    if given["site.region"] is not None:
        check_name("region", given["site.region"])
    name = given["site.name"]
    if name is not None and not (
        name.isprintable() and name.strip() == name and 0 < len(name) <= _NAME_CHARS_MAX
    ):
        raise Refused(
            "invalid_value",
            f"{name!r} cannot be the name of a site.",
            next_step=f"Use 1 to {_NAME_CHARS_MAX} printable characters.",
            exit_code=ExitCode.USAGE,
        )


def check_listen(listen: str) -> None:
    """Raises CommandError unless it is HOST:PORT. IPv6 is written [::1]:8080."""
    host, _, port = listen.rpartition(":")
    digits = port.isascii() and port.isdecimal()
    if not host or not digits or int(port) > 65_535 or (":" in host and host[0] != "["):
        raise Refused(
            "invalid_value",
            f"{listen!r} is not HOST:PORT.",
            next_step="Write it as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080.",
            exit_code=ExitCode.USAGE,
        )


@contextmanager
def writing(home: Home) -> Iterator[None]:
    """Turns the disk's refusals into a CommandError that names the file."""
    try:
        yield
    except OSError as error:
        raise Refused(
            "home_not_writable",
            f"Cannot use the home {home.config}: {error.filename or ''}: {error.strerror}.",
            next_step="Check its owner, its permissions and the space on its disk, or name another"
            " folder with --home.",
            exit_code=ExitCode.CONFIGURATION,
        ) from error


def write_config(path: Path, given: dict[str, str | None]) -> None:
    """The settings a site begins with; everything else has its default."""
    defaults = Settings()
    values = {
        "name": given["site.name"] or defaults.site.name,
        "region": given["site.region"] or defaults.site.region,
        "listen": given["gateway.listen"] or defaults.gateway.listen,
    }
    # A JSON string is a TOML basic string.
    quoted = {name: json.dumps(value) for name, value in values.items()}
    text = (
        "# Settings of this site. docs/SETTINGS.md lists all of them with their defaults;\n"
        "# a variable CIC_<TABLE>_<NAME> in the environment goes before this file.\n\n"
        f"[site]\nname = {quoted['name']}\nregion = {quoted['region']}\n\n"
        f"[gateway]\nlisten = {quoted['listen']}\n"
    )
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(_CONFIG_MODE)
    temporary.rename(path)


def refuse_other_values(home: Home, given: dict[str, str | None]) -> None:
    """Raises CommandError when the site that is here has other settings than those asked for."""
    settings = load(home.config_file, {})
    there = {
        "gateway.listen": settings.gateway.listen,
        "site.name": settings.site.name,
        "site.region": settings.site.region,
    }
    for setting, value in given.items():
        if value is not None and value != there[setting]:
            raise Refused(
                "already_exists",
                f"The site in {home.config} has {setting} = {there[setting]!r}, not {value!r}.",
                next_step=f"Change it in {home.config_file} and start the appliance again.",
                exit_code=ExitCode.CONFLICT,
            )


def print_site(invocation: Invocation, settings: Settings, made: list[str]) -> None:
    home = invocation.home
    if invocation.json:
        print_json(
            {
                "home": str(home.config),
                "config": str(home.config_file),
                "name": settings.site.name,
                "region": settings.site.region,
                "listen": settings.gateway.listen,
                "made": made,
            }
        )
        return
    for path in made:
        click.echo(f"made {path}")
    if not made:
        click.echo(f"The site in {home.config} is complete; nothing was changed.")
    click.echo(f"Start it with `{cic_line(home, 'serve --with-agent')}`.")
