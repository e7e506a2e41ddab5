"""`cic completion`: what a shell needs to complete the command line."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from appliance.commands.output import print_json
from appliance.wire.command import CommandError, Invocation

_SHELLS: Final = ("bash", "zsh", "fish")
_VARIABLE: Final = "_CIC_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  cic completion bash > ~/.local/share/bash-completion/completions/cic
    zsh:   cic completion zsh > "${fpath[1]}/_cic"
    fish:  cic completion fish > ~/.config/fish/completions/cic.fish
    """
    invocation: Invocation = ctx.obj
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandError(f"There is no completion for {shell}.")
    script = kind(ctx.find_root().command, {}, "cic", _VARIABLE).source()
    if invocation.json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
