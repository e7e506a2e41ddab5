"""`expand[]`: an id in the answer becomes the object it names.

Source: page "Expanding responses" of the API reference.
"""

import copy
from typing import Any

from tests.fakes.stripe.account import KINDS, Account, Object


def expanded(account: Account, answer: Any, paths: list[str]) -> Any:
    """A copy of the answer with every path followed; a path that leads nowhere is left out."""
    if not paths:
        return answer
    result = copy.deepcopy(answer)
    for path in paths:
        _follow(account, result, path.split("."))
    return result


def _follow(account: Account, node: Any, steps: list[str]) -> None:
    if isinstance(node, list):
        for one in node:
            _follow(account, one, steps)
        return
    if not isinstance(node, dict) or not steps:
        return
    held = node.get(steps[0])
    if isinstance(held, str) and (found := _named(account, held)) is not None:
        held = node[steps[0]] = copy.deepcopy(found)
    _follow(account, held, steps[1:])


def _named(account: Account, object_id: str) -> Object | None:
    for kind in KINDS:
        if object_id in account.objects[kind]:
            return account.objects[kind][object_id]
    return None
