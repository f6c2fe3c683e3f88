"""How does one step of a recurrence look as a module, for those who write the loop themselves?

A cell owns the weights of one step and checks what it is given; what it computes is in
equations.py, which is the file to read first. For whole sequences see layers.py.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from tinygrad_rnn import creation
from tinygrad_rnn.nn import init
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.nn.recurrent import equations
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.tensor import Tensor


class RNNCellBase(Module):
    """What the cells share: weights, their first values U(-1/√H, 1/√H), and the checks.

    weight_ih: (G · H, input_size); weight_hh: (G · H, H); bias_ih, bias_hh: (G · H,), or None
    without bias. H is hidden_size and G, the number of blocks of H rows, `num_chunks`.
    """

    num_chunks: ClassVar[int]

    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = self.num_chunks * hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, hidden_size),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        for name, shape in shapes.items():
            wanted = bias or name.startswith("weight")
            empty = creation.empty(*shape, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, None if empty is None else Parameter(empty))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight and bias anew from U(-1/√H, 1/√H)."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    def extra_repr(self) -> str:
        """The constructor arguments that are not the defaults."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    def _weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _check_input(self, x: Any) -> None:
        name = type(self).__name__
        if not isinstance(x, Operators):
            raise TypeError(f"{name}: expected the input to be a Tensor, got {type(x).__name__}")
        if x.ndim not in (1, 2):
            raise ValueError(
                f"{name}: expected an input of shape (batch, {self.input_size}) or "
                f"({self.input_size},), got {x.shape}; for a whole sequence use "
                f"nn.{name.removesuffix('Cell')}"
            )
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"{name}: the last axis of the input should have input_size={self.input_size} "
                f"features, got the shape {x.shape}"
            )
        self._check_dtype("the input", x)

    def _check_state(self, label: str, h: Any, x: Tensor) -> None:
        name = type(self).__name__
        if not isinstance(h, Operators):
            raise TypeError(f"{name}: expected {label} to be a Tensor, got {type(h).__name__}")
        expected = (*x.shape[:-1], self.hidden_size)
        if h.ndim not in (1, 2):
            raise ValueError(f"{name}: expected {label} of shape {expected}, got {h.shape}")
        if h.shape != expected:
            raise RuntimeError(
                f"{name}: expected {label} of shape {expected} for an input of shape {x.shape}, "
                f"got {h.shape}; a state from a batch of another size cannot go on with this one"
            )
        self._check_dtype(label, h)

    def _check_dtype(self, label: str, value: Operators) -> None:
        if value.dtype != self.weight_ih.dtype:
            raise RuntimeError(
                f"{type(self).__name__}: {label} is {describe(value)}, the weights are "
                f"{self.weight_ih.dtype}; convert one: x.to({self.weight_ih.dtype}) or "
                f"cell.to({value.dtype})"
            )

    def _zeros(self, x: Tensor) -> Tensor:
        return creation.zeros(*x.shape[:-1], self.hidden_size, dtype=x.dtype, device=x.device)


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu in place of tanh (Elman 1990).

    Args:
        input_size, hidden_size: the numbers D of input features and H of hidden units.
        bias: whether there are b_ih and b_hh.
        nonlinearity: "tanh" or "relu".
        device, dtype: where the weights live and what they are.

    Shapes: x: (B, D) or (D,); h and the result: (B, H) or (H,). Without h it is zeros.
    Weights: weight_ih (H, D), weight_hh (H, H), bias_ih and bias_hh (H,).

    >>> import tinygrad_rnn as torch
    >>> cell = RNNCell(10, 20)
    >>> xs, h = torch.randn(6, 3, 10), torch.zeros(3, 20)
    >>> for x in xs:
    ...     h = cell(x, h)
    >>> h.shape
    (3, 20)
    """

    num_chunks = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in equations.NONLINEARITIES:
            raise RuntimeError(
                f"RNNCell: unknown nonlinearity {nonlinearity!r}; expected 'tanh' or 'relu'"
            )
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        """The constructor arguments that are not the defaults."""
        choice = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + choice

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """h' of one step.

        Raises TypeError, ValueError (number of axes) or RuntimeError (sizes, dtype) for arguments
        that do not fit.
        """
        self._check_input(input)
        if hx is not None:
            self._check_state("hx", hx, input)
        step = equations.rnn(*self._weights(), nonlinearity=self.nonlinearity)
        _, h = step(input, self._zeros(input) if hx is None else hx)
        return h  # type: ignore[no-any-return]


class LSTMCell(RNNCellBase):
    """c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c') (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

    i = σ(W_ii x + b_ii + W_hi h + b_hi)     input gate
    f = σ(W_if x + b_if + W_hf h + b_hf)     forget gate
    g = tanh(W_ig x + b_ig + W_hg h + b_hg)  candidate
    o = σ(W_io x + b_io + W_ho h + b_ho)     output gate

    Args:
        input_size, hidden_size: the numbers D of input features and H of hidden units.
        bias: whether there are b_ih and b_hh.
        device, dtype: where the weights live and what they are.

    Shapes: x: (B, D) or (D,); h, c and both results: (B, H) or (H,). Without (h, c) they are zeros.
    Weights, blocks of rows in the order i, f, g, o: weight_ih (4H, D), weight_hh (4H, H), bias_ih
    and bias_hh (4H,).

    >>> import tinygrad_rnn as torch
    >>> cell = LSTMCell(10, 20)
    >>> state = torch.zeros(3, 20), torch.zeros(3, 20)
    >>> for x in torch.randn(6, 3, 10):
    ...     state = cell(x, state)
    >>> [part.shape for part in state]
    [(3, 20), (3, 20)]
    """

    num_chunks = 4

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(h', c') of one step.

        Raises TypeError, ValueError (number of axes) or RuntimeError (sizes, dtype) for arguments
        that do not fit.
        """
        self._check_input(input)
        if hx is None:
            hx = (self._zeros(input), self._zeros(input))
        else:
            if not isinstance(hx, tuple | list):
                raise TypeError(
                    f"LSTMCell: expected hx to be a tuple (h, c), got {type(hx).__name__}"
                )
            if len(hx) != 2:
                raise RuntimeError(f"LSTMCell: expected hx to be (h, c), got {len(hx)} tensors")
            for place, part in enumerate(hx):
                self._check_state(f"hx[{place}]", part, input)
        _, state = equations.lstm(*self._weights())(input, hx)
        return state  # type: ignore[no-any-return]


class GRUCell(RNNCellBase):
    """h' = (1 - z) ⊙ n + z ⊙ h (Cho et al. 2014, arXiv 1406.1078v1, as cuDNN).

    r = σ(W_ir x + b_ir + W_hr h + b_hr)           reset gate
    z = σ(W_iz x + b_iz + W_hz h + b_hz)           update gate
    n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))  candidate

    Args:
        input_size, hidden_size: the numbers D of input features and H of hidden units.
        bias: whether there are b_ih and b_hh.
        device, dtype: where the weights live and what they are.

    Shapes: x: (B, D) or (D,); h and the result: (B, H) or (H,). Without h it is zeros.
    Weights, blocks of rows in the order r, z, n: weight_ih (3H, D), weight_hh (3H, H), bias_ih and
    bias_hh (3H,).

    >>> import tinygrad_rnn as torch
    >>> cell = GRUCell(10, 20)
    >>> cell(torch.randn(3, 10)).shape
    (3, 20)
    """

    num_chunks = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """h' of one step.

        Raises TypeError, ValueError (number of axes) or RuntimeError (sizes, dtype) for arguments
        that do not fit.
        """
        self._check_input(input)
        if hx is not None:
            self._check_state("hx", hx, input)
        _, h = equations.gru(*self._weights())(input, self._zeros(input) if hx is None else hx)
        return h  # type: ignore[no-any-return]
