"""How can a graph and a derivation be asked the same questions? Both as functions of named arrays.

`Graph` is a layer of `nn`, `Derivation` the equations of this folder. Both take the values of the
parameters, of the input "x" and of the initial states "h_0" (and "c_0"), and give "output", "h_n"
(and "c_n"), or the gradient of `loss` by the names of the values. Always x: (T, B, D), whatever the
layer's own layout is. They do not compare: `compare.py` does. Read `stacked.py` before this file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn import nn
from tinygrad_rnn.by_hand import stacked
from tinygrad_rnn.by_hand.cell import Array, Cell
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.tensor import Tensor

Values: TypeAlias = Mapping[str, Array]


def loss(outputs: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
    """L = Σ output ⊙ weight over every output, step and final state; real, complex, or a Tensor.

    The weights are its cotangents: with random ones no path of the gradient is left out.
    """
    return sum((outputs[name] * weight).sum() for name, weight in weights.items())


class Graph:
    """A copy of the layer in float64 and eval mode, with its gradient by the engine.

    unbatched: call the layer with x (T, D), without the batch axis.
    """

    def __init__(self, layer: nn.Module, cell: Cell, unbatched: bool) -> None:
        self.layer = copy.deepcopy(layer).double().eval()
        self.cell = cell
        self.unbatched = unbatched
        self.batch_first = bool(getattr(layer, "batch_first", False)) and not unbatched

    def forward(self, values: Values) -> dict[str, Array]:
        """The outputs, without recording a graph."""
        with no_grad():
            return {name: y.numpy() for name, y in self._run(self._place(values)).items()}

    def gradients(self, values: Values, weights: Values) -> dict[str, Array]:
        """The gradient of `loss` by `backward`; zero where none arrives."""
        tensors = self._place(values)
        for tensor in tensors.values():
            tensor.requires_grad_()
            tensor.grad = None
        loss(self._run(tensors), {n: self._tensor(w) for n, w in weights.items()}).backward()
        return {
            name: np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
            for name, tensor in tensors.items()
        }

    def _tensor(self, array: Array) -> Tensor:
        return Tensor(array, device=next(self.layer.parameters()).device)

    def _place(self, values: Values) -> dict[str, Tensor]:
        """The values as leaf tensors, those of the parameters inside the layer."""
        tensors: dict[str, Tensor] = dict(self.layer.named_parameters())
        for name, array in values.items():
            if name in tensors:
                tensors[name].data = self._tensor(array)
            else:
                tensors[name] = self._tensor(array)
        return tensors

    def _run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Call the layer in its own layout."""
        x = tensors["x"]
        state = [tensors[f"{name}_0"] for name in self.cell.states]
        if self.unbatched:
            x, state = x.squeeze(1), [s.squeeze(1) for s in state]
        elif self.batch_first:
            x = x.transpose(0, 1)
        output, final = self.layer(x, tuple(state) if len(state) > 1 else state[0])
        state_n = list(final) if len(state) > 1 else [final]
        if self.unbatched:
            output, state_n = output.unsqueeze(1), [s.unsqueeze(1) for s in state_n]
        elif self.batch_first:
            output = output.transpose(0, 1)
        names = [f"{name}_n" for name in self.cell.states]
        return {"output": output, **dict(zip(names, state_n, strict=True))}


class Derivation:
    """The equations of this folder, with the gradient by hand. `forward` takes complex values."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def forward(self, values: Values) -> dict[str, Array]:
        """The outputs."""
        return self._run(values)[0]

    def gradients(self, values: Values, weights: Values) -> dict[str, Array]:
        """The gradient of `loss` by `stacked.backward`."""
        _, saved = self._run(values)
        dstate_n = tuple(weights[f"{name}_n"] for name in self.cell.states)
        dparameters, dx, dstate_0 = stacked.backward(
            self.cell, _parameters(values), saved, weights["output"], dstate_n
        )
        names = [f"{name}_0" for name in self.cell.states]
        return {**dparameters, "x": dx, **dict(zip(names, dstate_0, strict=True))}

    def _run(self, values: Values) -> tuple[dict[str, Array], list[Any]]:
        state = tuple(values[f"{name}_0"] for name in self.cell.states)
        output, state_n, saved = stacked.forward(self.cell, _parameters(values), values["x"], state)
        names = [f"{name}_n" for name in self.cell.states]
        return {"output": output, **dict(zip(names, state_n, strict=True))}, saved


def _parameters(values: Values) -> dict[str, Array]:
    return {name: a for name, a in values.items() if name.startswith(("weight", "bias"))}
