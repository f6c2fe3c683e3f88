"""How does a recurrence run over whole sequences, layer upon layer and in both directions?

`RNNBase._walk` is the whole of it: each layer in each direction is one `scan` of its cell from
equations.py, and the outputs of a layer are the inputs of the next. The rest is PyTorch's surface:
constructors, weight names, shapes and errors. Backpropagation through time is not written anywhere:
it is the scan's pulled-back step or, with mode="unroll", the engine's backward over all steps. Read
equations.py, scan/unroll.py and scan/scan.py before this file, and for sequences of different
lengths nn/utils/rnn.py and lengths.py.
"""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any, ClassVar

from tinygrad_rnn import creation
from tinygrad_rnn.backend import to_device
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn import init
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.nn.recurrent import equations
from tinygrad_rnn.nn.recurrent.lengths import within_lengths
from tinygrad_rnn.nn.utils.rnn import PackedSequence, laid_out
from tinygrad_rnn.ops.operators import Operators, cat
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.scan import Cell, scan, trees, unroll
from tinygrad_rnn.tensor import Tensor


class RNNBase(Module):
    """What RNN, LSTM and GRU share: the walk over layers and directions, weights and checks.

    A subclass says how many blocks of H rows its weights have (`num_chunks`), what its weights and
    states are called, and which `cell` runs in one layer and direction.
    """

    num_chunks: ClassVar[int]
    weight_kinds: ClassVar[tuple[str, ...]] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    state_names: ClassVar[tuple[str, ...]] = ("h_0",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        mode: str = "scan",
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = self._probability(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.mode = mode
        self._check_arguments()
        for layer, reverse in self._runs():
            for name, shape in self._weight_shapes(layer, reverse).items():
                weight = Parameter(creation.empty(*shape, device=device, dtype=dtype))
                self.register_parameter(name, weight)
        self.reset_parameters()

    def cell(self, layer: int = 0, reverse: bool = False) -> Cell:
        """The step `cell(x, h) -> (y, h)` of one layer in one direction; see equations.py."""
        raise NotImplementedError

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """(output, state after the last step), for a batch of sequences or for one.

        Sequences of different lengths come as a PackedSequence. The output then is one too, and the
        state of each is that after its own last step, in the order of the batch that was packed.

        Raises:
            TypeError: the input is not a Tensor, or the state is not of the kind the layer has.
            ValueError: an input of neither 2 nor 3 axes, or of another dtype than the weights.
            RuntimeError: sizes that do not fit, or a sequence without steps.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        self._check_input(input)
        batched = input.ndim == 3
        if not batched:
            xs = input.unsqueeze(1)
        else:
            xs = input.transpose(0, 1) if self.batch_first else input  # (T, B, D)
        initial = self._zeros(xs) if hx is None else self._state(hx, xs, batched)
        ys, final = self._walk(xs, initial)
        if not batched:
            unbatched = (part.squeeze(1) for part in trees.leaves(final))
            return ys.squeeze(1), trees.rebuild(final, unbatched)
        return (ys.transpose(0, 1) if self.batch_first else ys), final

    def _forward_packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """The sequences run side by side, longest first, which is the order they are packed in."""
        self._check_packed(input)
        xs, mask = laid_out(input)  # (T, B, D), (T, B)
        real = Tensor(to_device(mask, xs.device))
        given = self._zeros(xs) if hx is None else self._state(hx, xs, batched=True)
        initial = _reordered(given, input.sorted_indices)
        ys, final = self._walk(xs, initial, None if mask.all() else real.unsqueeze(-1))
        return input._replace(data=ys[real]), _reordered(final, input.unsorted_indices)

    def _walk(self, xs: Tensor, initial: Any, real: Tensor | None = None) -> tuple[Tensor, Any]:
        """(output, final state) of all layers and directions: xs (T, B, D) to (T, B, N · H).

        real: (T, B, 1), which steps the sequences have; None for all.
        """
        # A single step, as in streaming, has nothing to gain from being written down first.
        run = scan if self.mode == "scan" and xs.shape[0] > 1 else unroll
        before = iter(trees.unstack(initial))  # one state for each layer and direction
        after: list[Any] = []
        for layer in range(self.num_layers):
            if layer > 0:
                xs = F.dropout(xs, self.dropout, self.training)
            outputs = []
            for reverse in self._directions():
                cell = self.cell(layer, reverse)
                step, inputs = (cell, xs) if real is None else (within_lengths(cell), (xs, real))
                ys, state = run(step, inputs, next(before), reverse=reverse)
                outputs.append(ys)
                after.append(state)
            xs = cat(outputs, -1) if self.bidirectional else ys  # (T, B, directions · H)
        return xs, trees.stack(after)

    # The weights.

    def _directions(self) -> tuple[bool, ...]:
        """The values of `reverse`: forward first."""
        return (False, True) if self.bidirectional else (False,)

    def _runs(self) -> list[tuple[int, bool]]:
        """Every (layer, reverse), in the order of the weights and of the rows of h_0."""
        return [
            (layer, reverse) for layer in range(self.num_layers) for reverse in self._directions()
        ]

    def _output_size(self) -> int:
        """The size of h: hidden_size, or proj_size with projections."""
        return self.proj_size or self.hidden_size

    def _weight_shapes(self, layer: int, reverse: bool) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the weights of one layer in one direction, in PyTorch's order."""
        rows = self.num_chunks * self.hidden_size
        below = len(self._directions()) * self._output_size() if layer else self.input_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, below),
            "weight_hh": (rows, self._output_size()),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes |= {"weight_hr": (self.proj_size, self.hidden_size)}
        return {kind + _suffix(layer, reverse): shape for kind, shape in shapes.items()}

    def _weights(self, layer: int, reverse: bool) -> list[Any]:
        """The weights as equations.py takes them, None for one that this layer does not have."""
        return [getattr(self, kind + _suffix(layer, reverse), None) for kind in self.weight_kinds]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in self._weight_shapes(*run)] for run in self._runs()]

    def reset_parameters(self) -> None:
        """Draw every weight and bias anew from U(-1/√H, 1/√H)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    def flatten_parameters(self) -> None:
        """Do nothing: weights are never packed here. PyTorch's scripts call this for cuDNN."""

    def extra_repr(self) -> str:
        """The constructor arguments that are not the defaults."""
        shown = f"{self.input_size}, {self.hidden_size}"
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0,
            "bidirectional": False,
            "mode": "scan",
        }
        for argument, default in defaults.items():
            value = getattr(self, argument)
            if value != default:
                shown += f", {argument}={value}"
        return shown

    # The checks, before anything is computed.

    def _check_arguments(self) -> None:
        """Raise for constructor arguments that make no sense; warn of a dropout without effect."""
        name = type(self).__name__
        for argument in ("bias", "batch_first"):
            value = getattr(self, argument)
            if not isinstance(value, bool):
                raise TypeError(f"{name}: {argument} must be True or False, got {value!r}")
        if self.mode not in ("scan", "unroll"):
            raise ValueError(f"{name}: mode is 'scan' or 'unroll', not {self.mode!r}")
        for argument in ("input_size", "hidden_size", "num_layers", "proj_size"):
            value = getattr(self, argument)
            if not isinstance(value, int):
                raise TypeError(f"{name}: {argument} must be an int, got {value!r}")
            if value <= 0 and argument != "proj_size":
                raise ValueError(f"{name}: {argument} must be greater than zero, got {value}")
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(
                f"{name}: proj_size must be smaller than hidden_size, or 0 for no projection; got "
                f"proj_size={self.proj_size}, hidden_size={self.hidden_size}"
            )
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"{name}: dropout acts between layers only; dropout={self.dropout} has no effect "
                "with num_layers=1",
                stacklevel=4,
            )

    def _probability(self, dropout: Any) -> float:
        """The chance of zeroing a value, as a float in [0, 1]."""
        chance = float(dropout)
        is_number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
        if not is_number or not 0 <= chance <= 1:
            raise ValueError(
                f"{type(self).__name__}: dropout must be a number in [0, 1], the probability of "
                f"zeroing a value; got {dropout!r}"
            )
        return chance

    def _check_input(self, input: Any) -> None:
        name = type(self).__name__
        if not isinstance(input, Operators):
            raise TypeError(f"{name}: the input must be a Tensor, got {type(input).__name__}")
        if input.ndim not in (2, 3):
            raise ValueError(f"{name}: {self._expected_input()}, got {input.shape}")
        self._check_features(input, self._expected_input())
        steps = 1 if self.batch_first and input.ndim == 3 else 0
        if input.shape[steps] == 0:
            raise RuntimeError(f"{name}: the sequence has no steps (T = 0): {input.shape}")

    def _check_packed(self, input: PackedSequence) -> None:
        expected = f"expected packed data of shape (steps, {self.input_size})"
        if input.data.ndim != 2:
            raise RuntimeError(f"{type(self).__name__}: {expected}, got {input.data.shape}")
        self._check_features(input.data, expected)

    def _check_features(self, input: Any, expected: str) -> None:
        """Raise for another dtype than the weights, and another size than input_size."""
        name = type(self).__name__
        weights = self.weight_ih_l0.dtype
        if input.dtype != weights:
            raise ValueError(
                f"{name}: the input is {describe(input)}, the weights are {weights}; convert the "
                f"input, x.to({weights}), or the model, model.to({input.dtype})"
            )
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"{name}: {expected}, got {input.shape}: the last axis must have "
                f"input_size={self.input_size} features"
            )

    def _expected_input(self) -> str:
        axes = "batch, T" if self.batch_first else "T, batch"
        return f"expected an input of shape ({axes}, {self.input_size}) or (T, {self.input_size})"

    def _state_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """What shape each initial state must have: h is projected, c is not."""
        rows = len(self._runs())
        sizes = (self._output_size(), self.hidden_size)
        return {
            state: (rows, batch, size) for state, size in zip(self.state_names, sizes, strict=False)
        }

    def _zeros(self, xs: Tensor) -> Any:
        """The initial state where none is given."""
        zeros = tuple(
            creation.zeros(*shape, dtype=xs.dtype, device=xs.device)
            for shape in self._state_shapes(xs.shape[1]).values()
        )
        return zeros if len(zeros) > 1 else zeros[0]

    def _state(self, hx: Any, xs: Tensor, batched: bool) -> Any:
        """The given initial state, with a batch axis. Raises if it does not fit xs (T, B, D)."""
        several = len(self.state_names) > 1
        if isinstance(hx, tuple | list) != several:
            expected = f"a tuple ({', '.join(self.state_names)})" if several else "one Tensor"
            raise TypeError(
                f"{type(self).__name__}: the state must be {expected}, got {type(hx).__name__}"
            )
        given = tuple(hx) if several else (hx,)
        if len(given) != len(self.state_names):
            raise RuntimeError(
                f"{type(self).__name__}: the state must be ({', '.join(self.state_names)}), got "
                f"{len(given)} tensors"
            )
        shapes = self._state_shapes(xs.shape[1])
        for (name, (rows, batch, size)), state in zip(shapes.items(), given, strict=True):
            self._check_state(name, state, (rows, batch, size) if batched else (rows, size))
        if not batched:
            given = tuple(state.unsqueeze(1) for state in given)
        return given if several else given[0]

    def _check_state(self, name: str, state: Any, expected: tuple[int, ...]) -> None:
        layer = type(self).__name__
        if not isinstance(state, Operators):
            raise TypeError(f"{layer}: {name} must be a Tensor, got {type(state).__name__}")
        if state.shape != expected:
            axes = "num_layers · directions" + (", batch" if len(expected) == 3 else "") + ", size"
            raise RuntimeError(
                f"{layer}: expected {name} of shape {expected} ({axes}), got {state.shape}"
                + _likely_cause(expected, state.shape)
            )
        weights = self.weight_ih_l0.dtype
        if state.dtype != weights:
            raise RuntimeError(
                f"{layer}: {name} is {describe(state)}, the weights are {weights}; convert it: "
                f"{name}.to({weights})"
            )


def _suffix(layer: int, reverse: bool) -> str:
    """How PyTorch's weight names end."""
    return f"_l{layer}_reverse" if reverse else f"_l{layer}"


def _reordered(state: Any, order: Tensor | None) -> Any:
    """The state with its batch axis, the second, in another order; None leaves it as it is."""
    if order is None:
        return state
    return trees.rebuild(state, (part.index_select(1, order) for part in trees.leaves(state)))


def _likely_cause(expected: tuple[int, ...], got: tuple[int, ...]) -> str:
    """What usually leads to such a state shape, as the end of an error message."""
    if len(got) != len(expected):
        return "; a batch of sequences needs a state with a batch axis, one sequence one without"
    if len(expected) == 3 and got == (expected[1], expected[0], expected[2]):
        return "; batch_first does not apply to states: use state.transpose(0, 1)"
    if len(expected) == 3 and (got[0], got[2]) == (expected[0], expected[2]):
        return (
            "; the state is from a batch of another size, perhaps this is the last, smaller batch: "
            "pass a fresh state, or drop such batches (DataLoader(drop_last=True))"
        )
    return ""


def _no_projection(name: str, proj_size: int) -> None:
    if proj_size != 0:
        raise ValueError(f"{name}: only LSTM has projections, got proj_size={proj_size}")


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh) for t = 1 … T, or relu (Elman 1990).

    Args:
        input_size, hidden_size: the numbers D of input features and H of hidden units.
        num_layers: L; layer l + 1 gets the outputs of layer l.
        nonlinearity: "tanh" or "relu".
        bias: whether there are b_ih and b_hh.
        batch_first: whether input and output are (B, T, …). The states are not affected.
        dropout: the chance of zeroing each output of every layer but the last, in training.
        bidirectional: whether a second set of weights reads the sequence from its end; N = 2
            directions then, else N = 1. Their outputs stand side by side, forward first.
        device, dtype: where the weights live and what they are.
        proj_size: LSTM's; anything but 0 raises ValueError.
        mode: "scan", or "unroll" to record every operation of every step: slower, and the same.

    Shapes: input (T, B, D) or, of one sequence, (T, D); h_0, zeros if not given, and h_n
    (L · N, B, H) or (L · N, H); output (T, B, N · H) or (T, N · H). For two directions h_n is not
    the last output: the reverse direction ends at the first step. For sequences of different
    lengths, input and output are PackedSequences (nn.utils.rnn).
    Weights, for each layer l, and again with the suffix `_reverse`: weight_ih_l (H, D), and
    (H, N · H) from the second layer on, weight_hh_l (H, H), bias_ih_l and bias_hh_l (H,), all drawn
    from U(-1/√H, 1/√H).

    >>> import tinygrad_rnn as torch
    >>> rnn = RNN(10, 20, num_layers=2)
    >>> output, h_n = rnn(torch.randn(5, 3, 10), torch.randn(2, 3, 20))
    >>> output.shape, h_n.shape
    ((5, 3, 20), (2, 3, 20))
    """

    num_chunks = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
        mode: str = "scan",
    ) -> None:
        _no_projection("RNN", proj_size)
        if nonlinearity not in equations.NONLINEARITIES:
            raise ValueError(
                f"RNN: unknown nonlinearity {nonlinearity!r}; expected 'tanh' or 'relu'"
            )
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            mode=mode,
        )
        self.nonlinearity = nonlinearity

    def cell(self, layer: int = 0, reverse: bool = False) -> Cell:
        """The step cell(x, h) -> (h', h') of one layer in one direction."""
        return equations.rnn(*self._weights(layer, reverse), nonlinearity=self.nonlinearity)


class LSTM(RNNBase):
    """c_t = f ⊙ c_{t-1} + i ⊙ g, h_t = o ⊙ tanh(c_t) for t = 1 … T.

    i, f, g and o are those of `LSTMCell` (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

    Args:
        input_size, hidden_size: the numbers D of input features and H of hidden units.
        num_layers: L; layer l + 1 gets the outputs of layer l.
        bias: whether there are b_ih and b_hh.
        batch_first: whether input and output are (B, T, …). The states are not affected.
        dropout: the chance of zeroing each output of every layer but the last, in training.
        bidirectional: whether a second set of weights reads the sequence from its end; N = 2
            directions then, else N = 1. Their outputs stand side by side, forward first.
        proj_size: P, the size of h if it is to be smaller than c: h_t = W_hr (o ⊙ tanh(c_t)), from
            Sak et al. 2014 (arXiv 1402.1128). 0: no projection, and P = H.
        device, dtype: where the weights live and what they are.
        mode: "scan", or "unroll" to record every operation of every step: slower, and the same.

    Shapes: input (T, B, D) or, of one sequence, (T, D); the state is a tuple, (h_0, c_0) before,
    zeros if not given, and (h_n, c_n) after: h (L · N, B, P) or (L · N, P), c (L · N, B, H) or
    (L · N, H); output (T, B, N · P) or (T, N · P). For two directions h_n is not the last output:
    the reverse direction ends at the first step. For sequences of different lengths, input and
    output are PackedSequences (nn.utils.rnn).
    Weights, for each layer l, and again with the suffix `_reverse`: weight_ih_l (4H, D), and
    (4H, N · P) from the second layer on, weight_hh_l (4H, P), bias_ih_l and bias_hh_l (4H,), with
    projections weight_hr_l (P, H), all drawn from U(-1/√H, 1/√H); blocks of rows in the order
    i, f, g, o.

    >>> import tinygrad_rnn as torch
    >>> lstm = LSTM(10, 20, num_layers=2)
    >>> output, (h_n, c_n) = lstm(torch.randn(5, 3, 10))
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 3, 20), (2, 3, 20), (2, 3, 20))
    """

    num_chunks = 4
    weight_kinds = (*RNNBase.weight_kinds, "weight_hr")
    state_names = ("h_0", "c_0")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        mode: str = "scan",
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            mode,
        )

    def cell(self, layer: int = 0, reverse: bool = False) -> Cell:
        """The step cell(x, (h, c)) -> (h', (h', c')) of one layer in one direction."""
        return equations.lstm(*self._weights(layer, reverse))


class GRU(RNNBase):
    """h_t = (1 - z) ⊙ n + z ⊙ h_{t-1} for t = 1 … T.

    r, z and n are those of `GRUCell` (Cho et al. 2014, arXiv 1406.1078v1, with the reset gate after
    the matrix product, as cuDNN).

    Args:
        input_size, hidden_size: the numbers D of input features and H of hidden units.
        num_layers: L; layer l + 1 gets the outputs of layer l.
        bias: whether there are b_ih and b_hh.
        batch_first: whether input and output are (B, T, …). The states are not affected.
        dropout: the chance of zeroing each output of every layer but the last, in training.
        bidirectional: whether a second set of weights reads the sequence from its end; N = 2
            directions then, else N = 1. Their outputs stand side by side, forward first.
        device, dtype: where the weights live and what they are.
        proj_size: LSTM's; anything but 0 raises ValueError.
        mode: "scan", or "unroll" to record every operation of every step: slower, and the same.

    Shapes: input (T, B, D) or, of one sequence, (T, D); h_0, zeros if not given, and h_n
    (L · N, B, H) or (L · N, H); output (T, B, N · H) or (T, N · H). For two directions h_n is not
    the last output: the reverse direction ends at the first step. For sequences of different
    lengths, input and output are PackedSequences (nn.utils.rnn).
    Weights, for each layer l, and again with the suffix `_reverse`: weight_ih_l (3H, D), and
    (3H, N · H) from the second layer on, weight_hh_l (3H, H), bias_ih_l and bias_hh_l (3H,), all
    drawn from U(-1/√H, 1/√H); blocks of rows in the order r, z, n.

    >>> import tinygrad_rnn as torch
    >>> gru = GRU(10, 20, batch_first=True, bidirectional=True)
    >>> output, h_n = gru(torch.randn(3, 5, 10))
    >>> output.shape, h_n.shape
    ((3, 5, 40), (2, 3, 20))
    """

    num_chunks = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
        mode: str = "scan",
    ) -> None:
        _no_projection("GRU", proj_size)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            mode=mode,
        )

    def cell(self, layer: int = 0, reverse: bool = False) -> Cell:
        """The step cell(x, h) -> (h', h') of one layer in one direction."""
        return equations.gru(*self._weights(layer, reverse))
