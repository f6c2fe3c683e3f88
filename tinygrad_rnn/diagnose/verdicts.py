"""Will this recurrence learn, and if not, why not?

`judge` turns the numbers of a `Flow` into words, and says what usually helps, with the source of
the advice. The numbers are in `flow.py`, which is the file to read first.

How far gradients reach is judged by the product of the steps' Jacobians, not by how dL/dh_t falls.
The two agree where the loss is of the last step only: for a default LSTM of 32 units over 100 steps
dL/dh_t then falls by the factor 0.65 per step, and so does the product. But where all steps have a
loss of their own, dL/dh_t hardly falls at all (0.998 per step in the same LSTM): what is seen there
is the loss of the next few steps, and nothing of what comes from further away.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.diagnose.flow import CLOSED, OPEN, Flow, Saturation, decimal, mean

#: Of a gradient at the end, less than this share at the start is "vanishing". What is left of the
#: far past is then lost among the gradients of the near past, which are a hundred times as large.
VANISHED = 0.01
#: A gradient that has grown this many times is "exploding": the far past then outweighs the near
#: one a hundred times, and every clipped update goes its way.
EXPLODED = 100.0
#: A gate is "dead" if at least this share of its values, over all steps, rows and units, is closed:
#: some units may well be closed for good, nearly all of them may not.
DEAD = 0.95
#: A tanh is "saturated" if at least this share of its values is. Half of them is no fault: in an
#: LSTM that `tinygrad-rnn train` has taught to write, 63 % of g are.
SATURATED = 0.9


class Verdict(NamedTuple):
    """What is wrong with a recurrence, or that nothing is.

    kind: "non-finite", "cut off", "exploding", "vanishing", "dead gate", "saturated" or "healthy".
    finding: what was found, in words that begin with the kind.
    advice: what usually helps; "" for "healthy".
    """

    kind: str
    finding: str
    advice: str


def judge(flow: Flow) -> list[Verdict]:
    """All that is wrong with a recurrence, the worst first; one "healthy" if nothing is.

    Numbers are means over the batch rows whose Jacobians are known.
    """
    if (bad := _non_finite(flow)) is not None:
        return [bad]
    growth = flow.products.largest.mean(axis=1)  # (T,), a logarithm
    gates = flow.saturation.items()
    found = [
        _cut_off(flow),
        _exploding(flow, growth),
        *(_dead(name, gate) for name, gate in gates if gate.kind == "sigmoid"),
        _vanishing(flow, growth),
        *(_saturated(name, gate) for name, gate in gates if gate.kind == "tanh"),
    ]
    wrong = [verdict for verdict in found if verdict is not None]
    if wrong:
        return wrong
    size = decimal(growth[0])
    finding = f"healthy: at the start, a gradient at the end is at most {size} times as large"
    return [Verdict("healthy", finding, "")]


def _non_finite(flow: Flow) -> Verdict | None:
    gradients = np.all([np.isfinite(g).all(axis=1) for g in flow.gradients.values()], axis=0)
    steps = ~np.isnan(flow.steps.largest).any(axis=1)
    if not flow.finite.all():
        where = f"state after t = {flow.state_times[np.argmin(flow.finite)]}"
    elif not gradients.all():  # they are computed from the last state to the first
        where = f"gradient of the state after t = {flow.state_times[~gradients][-1]}"
    elif not steps.all() and _cut_off(flow) is None:  # else the steps were not recorded
        where = f"Jacobian of t = {flow.step_times[np.argmin(steps)]}"
    else:
        return None
    return Verdict(
        "non-finite",
        f"non-finite: NaN or Inf, first in the {where}",
        "diagnose.explain_nan, called with the same arguments, names the operation that made it.",
    )


def _cut_off(flow: Flow) -> Verdict | None:
    if any(g.any() for g in flow.gradients.values()):
        return None
    return Verdict(
        "cut off",
        "cut off: the loss has no gradient with respect to any state",
        "Does the loss use this output? If so, something on the way ends the graph: detach(), "
        ".data, no_grad(), argmax, or a number taken out and put in again.",
    )


def _exploding(flow: Flow, growth: Any) -> Verdict | None:
    first = int(np.argmax(growth))
    if not growth[first] > np.log(EXPLODED):
        return None
    steps = flow.length - first
    return Verdict(
        "exploding",
        f"exploding at rate {np.exp(growth[first] / steps):.3g} per step: over the last {steps} "
        f"steps a gradient grows up to {decimal(growth[first])} times",
        "Clip the gradient: nn.utils.clip_grad_norm_ (Pascanu, Mikolov and Bengio 2013). Smaller "
        "or orthogonal recurrent weights (nn.init.orthogonal_) and a smaller learning rate remove "
        "the cause.",
    )


def _vanishing(flow: Flow, growth: Any) -> Verdict | None:
    gone = growth < np.log(VANISHED)
    if not gone[0]:
        return None
    reach = flow.length - int(np.argmin(gone)) if not gone.all() else 0
    gated = any(gate.kind == "sigmoid" for gate in flow.saturation.values())
    advice = (
        "Begin with the gate open that keeps the state, f of an LSTM or z of a GRU: with a bias of "
        "1 (Gers et al. 2000, Jozefowicz et al. 2015), or of the logarithm of how many steps to "
        "remember (Tallec and Ollivier 2018)."
        if gated
        else "Gates: LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014). Without "
        "gates, orthogonal recurrent weights (nn.init.orthogonal_; Henaff et al. 2016)."
    )
    return Verdict(
        "vanishing",
        f"vanishing at rate {np.exp(growth[0] / flow.length):.3g} per step: of a gradient at the "
        f"end less than {VANISHED:.0%} is left {reach + 1} steps earlier, and at most "
        f"{decimal(growth[0])} at the start",
        f"{advice} If nothing depends on what lies further back, nothing is wrong, and shorter "
        "sequences would do.",
    )


def _dead(name: str, gate: Saturation) -> Verdict | None:
    share = mean(gate.low)
    if not share >= DEAD:
        return None
    return Verdict(
        "dead gate",
        f"dead gate {name}: {share:.0%} of its values are below {CLOSED:g}, so it lets next to "
        "nothing pass, and has next to no slope to learn from",
        "Look at the biases of this gate and at the size of what goes into it. Biases start at 0, "
        "those of forget gates at 1 (Jozefowicz et al. 2015).",
    )


def _saturated(name: str, gate: Saturation) -> Verdict | None:
    share = mean(gate.low + gate.high)
    if not share >= SATURATED:
        return None
    return Verdict(
        "saturated",
        f"saturated {name}: {share:.0%} of its values are beyond ±{OPEN:g}, where a tanh has at "
        "most a tenth of its slope",
        "Inputs of unit variance, smaller weights (Glorot and Bengio 2010), a smaller learning "
        "rate, or layer normalisation (Ba et al. 2016).",
    )
