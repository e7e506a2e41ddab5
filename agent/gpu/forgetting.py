"""`cic agent forget-gpu`: a GPU that was taken out, or reset, is not held against its node."""

from pathlib import Path
from typing import Final

import click
import msgspec

from agent.durable import read_message, write_message
from agent.errors import AgentRunning
from agent.gpu.inventory import Remembered
from agent.gpu.watch import STATE_FILE
from agent.lock import held
from appliance.wire.command import CommandError, ExitCode, Invocation

_LOCK_WAIT_S: Final = 1.0


def without(remembered: Remembered, uuid: str) -> Remembered:
    """What is left when everything about one GPU is forgotten."""
    return msgspec.structs.replace(
        remembered,
        gpus=tuple(gpu for gpu in remembered.gpus if gpu.uuid != uuid),
        xids=tuple(xid for xid in remembered.xids if xid.uuid != uuid),
    )


@click.command("forget-gpu")
@click.argument("uuid")
@click.pass_obj
def forget_gpu(invocation: Invocation, uuid: str) -> None:
    """Forget the GPU UUID and its Xids: it was taken out, or reset. The agent must not run.

    A GPU that is still there is found again.
    """
    state = invocation.home.agent_state
    path: Path = state / STATE_FILE
    try:
        with held(state / "agent.lock", _LOCK_WAIT_S):
            before = read_message(path, Remembered)
            after = None if before is None else without(before, uuid)
            if after is None or after == before:
                known = ", ".join(gpu.uuid for gpu in before.gpus) if before else ""
                raise CommandError(
                    f"This node knows of no GPU {uuid}.",
                    next_step=f"It knows {known}." if known else "It has seen no GPU at all.",
                    exit_code=ExitCode.NOT_FOUND,
                )
            write_message(path, after)
    except AgentRunning as error:
        raise CommandError(
            "The agent of this home runs, and would remember the GPU.",
            next_step="End it first (SIGHUP leaves its engines running), then start it again.",
            exit_code=ExitCode.CONFLICT,
        ) from error
    click.echo(f"Forgot {uuid}. Start the agent again.")
