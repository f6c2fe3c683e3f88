"""How is a part of a recurrence run, so that somebody can time it?

What a run does for all steps at once, what it does step by step, and so on: each such part goes
through `run_part`, which runs it, or lets `diagnose.profile` run it with a watch in its hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tinygrad_rnn.modes import current

#: A call, function(*arguments).
Call: TypeAlias = tuple[Callable[..., Any], Sequence[Any]]


def run_part(order: int, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments): a part (partition.py) of a recurrence.

    order: how often a step was pulled back to give the one that is run: 0 for a step itself.
    """
    profile = current.profile
    if profile is None:
        return function(*arguments)
    return profile.run_part(order, name, function, arguments)


def make(calls: Sequence[Call], instructions: Sequence[Any] = ()) -> None:
    """Make the calls, one after the other.

    instructions: of which they are made, again and again; () if it does not matter.
    """
    for function, arguments in calls:
        function(*arguments)
