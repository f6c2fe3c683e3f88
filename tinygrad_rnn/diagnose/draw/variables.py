"""What does a cell itself call the values of its step?

`scan` writes a cell down without looking at its variables. Here Python says, whenever one of the
cell's functions returns, what its variables held. A gate is called after the variable that holds
it or, as in `f.sigmoid()`, after the one that goes in; diagnose/naming.py has the rules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tinygrad_rnn.diagnose.naming import belongs_to_cell, gates_of
from tinygrad_rnn.program import Program, Var


@contextmanager
def watching_variables() -> Iterator[dict[Var, str]]:
    """The names of the variables of a cell that is traced in this block, by what they held last.

    Of functions that call one another the outermost counts, and what a function was given is its
    caller's to name. Python's profiler is used for it; whoever profiles does so again afterwards.
    """
    names: dict[Var, str] = {}
    given: dict[FrameType, set[Var]] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return") or not belongs_to_cell(frame):
            return
        held = [(x, name) for name, x in frame.f_locals.items() if type(x) is Var]
        if event == "call":
            given[frame] = {x for x, _ in held}
        else:
            own = given.pop(frame, set())
            names.update((x, name) for x, name in reversed(held) if x not in own)

    profiler = sys.getprofile()
    sys.setprofile(look)
    try:
        yield names
    finally:
        sys.setprofile(profiler)


def tags_of(
    program: Program, variables: Mapping[Var, str], names: Mapping[Var, str]
) -> dict[str, str]:
    """What the cell calls the results in a program, by their names there."""
    known = {id(x): name for x, name in variables.items()}
    states = [*program.carry, *program.next_carry]
    gates = {
        id(gate.value): name
        for name, gate in gates_of(program.equations, known, states).items()
        if name.isidentifier()  # not "sigmoid 1", which says nothing new
    }
    results = [y for equation in program.equations for y in equation.outputs]
    called = {names[y]: gates.get(id(y)) or known.get(id(y), "") for y in results}
    return {value: name for value, name in called.items() if name}
