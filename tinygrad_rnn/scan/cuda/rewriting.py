"""Which step computes the same with fewer launches?

On a GPU a step costs by the number of its kernels and products, not by their arithmetic. Some
things about the equations of a cell stand in the way of few, and are changed here:

- `z + h @ W` would be a product and then an addition. Here the product is added to z as it is
  computed (`add_product`), which matrix libraries do at no cost.
- `split(a + b)` would be a kernel on the whole and another on the parts. Here it is a sum of parts,
  so all of it is computed where the parts are.
- `[h, x] @ W`, as papers write it, is `h @ W_h + x @ W_x`, of which only the first is for the loop;
  pulled back, it is a product whose columns for x are not.
- `h @ U` and `h @ V`, as where gates are written one by one, would be two products. Here they are
  the parts of one; and a pullback's `a @ U + b @ V` is one product, of a and b side by side.

All of this regroups sums, so results agree to rounding. And a softmax is written as what it
consists of, which can be part of a kernel. Read ../partition.py before this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tinygrad_rnn.ops import reduction
from tinygrad_rnn.ops.broadcasting import broadcast_to
from tinygrad_rnn.ops.elementwise import Elementwise, add, exp, log
from tinygrad_rnn.ops.linear import matmul
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.ops.shape import concatenate, reshape, split
from tinygrad_rnn.program import Equation, Program, Trace, Var
from tinygrad_rnn.scan.partition import Partition, partition

#: y = c + a @ b, for matrices; y may be written over c.
add_product = Primitive("add_product", lambda xp, c, a, b: c + xp.matmul(a, b))


def rewritten(program: Program) -> Program:
    """The step with few products, added to what is there, and splits before elementwise equations.

    Sums of parts may hold products again, which appear only when the splits have moved.
    """
    program = _Joining(_TakingApart(program).run()).run()
    return _Accumulating(_Splitting(_Accumulating(program).run()).run()).run()


class _Rewriting:
    """A program written anew, equation by equation.

    known: what has become of each of its variables.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.trace = Trace()
        self.known: dict[Var, Any] = {}
        self.users: dict[Var, list[Equation | None]] = {}  # None: the program itself
        for equation in program.equations:
            for x in equation.variables:
                self.users.setdefault(x, []).append(equation)
        for x in program.outputs:
            self.users.setdefault(x, []).append(None)

    def run(self) -> Program:
        """The new program."""
        program = self.program
        kinds = (program.carry, program.sequences, program.constants)
        inputs = [[self.trace.input(x, x.name) for x in kind] for kind in kinds]
        for old, new in zip(kinds, inputs, strict=True):
            self.known.update(zip(old, new, strict=True))
        for equation in self.order():
            self.write(equation)
        outputs = (
            [self.known[x] for x in kind]
            for kind in (program.next_carry, program.stacked, program.summed)
        )
        return Program(self.trace.equations, *inputs, *outputs)

    def order(self) -> Sequence[Equation]:
        """The equations, each after those that it needs."""
        return self.program.equations

    def write(self, equation: Equation) -> None:
        """The equation as it is."""
        operands = [self.known[x] if type(x) is Var else x for x in equation.inputs]
        made = equation.primitive(*operands, **equation.params)
        several = made if type(made) is list else [made]
        self.known.update(zip(equation.outputs, several, strict=True))

    def only_user(self, x: Any) -> Equation | None:
        """The one equation that uses a value once, if nothing else does."""
        users = self.users.get(x, []) if type(x) is Var else []
        return users[0] if len(users) == 1 else None


class _TakingApart(_Rewriting):
    """Operations along the last axis as elementwise ones and reductions that keep that axis.

    What is broadcast only for elementwise equations is left to them. And of a product with a matrix
    that is the same at all steps, what is not for the loop is a product of its own: `x @ W_x` of
    `[h, x] @ W`, and of `split(dz @ W)` the parts that are looked at after the loop.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        parts = partition(program)
        self.fixed = parts.fixed_values
        self.in_loop = {*parts.loop}
        self.for_loop = {x for equation in parts.loop for x in equation.variables}
        self.for_loop.update(program.next_carry)
        self.moving = set(program.carry)
        for equation in program.equations:
            if any(x in self.moving for x in equation.variables):
                self.moving.update(equation.outputs)

    def write(self, equation: Equation) -> None:
        """An operation's parts; other equations as they are."""
        primitive, params = equation.primitive, equation.params
        if primitive is broadcast_to and self._users_broadcast(equation.outputs[0]):
            self.known[equation.outputs[0]] = self.known[equation.inputs[0]]
            return
        if primitive is matmul and self._joins_what_is_there(equation):
            self._write_sum_of_products(equation)
            return
        if primitive is matmul and self._is_partly_for_later(equation):
            return
        if primitive is split and self._is_partly_for_later(equation.inputs[0].equation):
            self._write_products_of_parts(equation)
            return
        if params.get("axes") != (-1,) or primitive not in _ALONG_ROWS:
            super().write(equation)
            return
        (y,) = equation.outputs
        x = self.known[equation.inputs[0]]
        along = {"axes": (-1,), "keepdims": True}
        if primitive in (reduction.softmax, reduction.log_softmax):
            x = x - reduction.max(x, **along)
            e = exp(x)
            total = reduction.sum(e, **along)
            self.known[y] = e / total if primitive is reduction.softmax else x - log(total)
            return
        kept = primitive(x, **along)
        self.known[y] = kept if params["keepdims"] else reshape(kept, shape=y.shape)

    def _joins_what_is_there(self, product: Equation) -> bool:
        """Whether a left operand is a concatenation that has a part which is there before."""
        a, b = product.inputs
        maker = a.equation
        return (
            maker is not None
            and maker.primitive is concatenate
            and maker.params["axis"] == -1
            and a in self.moving
            and b in self.fixed
            and len(a.shape) == len(b.shape) == 2
            and any(x not in self.moving for x in maker.inputs)
        )

    def _write_sum_of_products(self, product: Equation) -> None:
        a, b = product.inputs
        parts = a.equation.inputs
        rows = split(self.known[b], sizes=tuple(x.shape[-1] for x in parts), axis=-2)
        total, *others = (matmul(self.known[x], W) for x, W in zip(parts, rows, strict=True))
        for term in others:
            total = total + term
        self.known[product.outputs[0]] = total

    def _is_partly_for_later(self, product: Equation | None) -> bool:
        """Whether a product of the loop is split into parts of which it does not need all."""
        if product is None or product not in self.in_loop or product.primitive is not matmul:
            return False
        a, b = product.inputs
        user = self.only_user(product.outputs[0])
        return (
            user is not None
            and user.primitive is split
            and user.params["axis"] == -1
            and b in self.fixed
            and len(a.shape) == len(b.shape) == 2
            and any(x not in self.for_loop for x in user.outputs)
        )

    def _write_products_of_parts(self, equation: Equation) -> None:
        a, b = equation.inputs[0].equation.inputs
        columns = split(self.known[b], sizes=equation.params["sizes"], axis=-1)
        for x, W in zip(equation.outputs, columns, strict=True):
            self.known[x] = matmul(self.known[a], W)

    def _users_broadcast(self, x: Var) -> bool:
        """Whether every user would give the same for a smaller x, next to another operand."""
        return all(
            user is not None
            and isinstance(user.primitive, Elementwise)
            and any(
                y.shape == user.outputs[0].shape
                and (y.equation is None or y.equation.primitive is not broadcast_to)
                for y in user.variables
            )
            for user in self.users[x]
        )


_ALONG_ROWS = (
    *(reduction.sum, reduction.mean, reduction.max, reduction.min),
    *(reduction.softmax, reduction.log_softmax),
)


class _Joining(_Rewriting):
    """Products in the loop of one left operand with matrices that are the same at all steps."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.parts = parts = partition(program)
        self.beside: dict[Var, list[Equation]] = {}  # by their left operand
        for equation in parts.loop:
            if _is_plain_product(equation, parts):
                self.beside.setdefault(equation.inputs[0], []).append(equation)

    def order(self) -> Sequence[Equation]:
        """What is the same at all steps comes first: matrices are joined before all are needed."""
        fixed = set(self.parts.fixed)
        return [*self.parts.fixed, *(x for x in self.program.equations if x not in fixed)]

    def write(self, equation: Equation) -> None:
        """All products of one left operand, at the first of them; other equations as they are."""
        plain = _is_plain_product(equation, self.parts)
        several = self.beside.get(equation.inputs[0], []) if plain else []
        if len(several) < 2 or not any(x is equation for x in several):
            super().write(equation)
        elif equation is several[0]:
            matrices = [self.known[x.inputs[1]] for x in several]
            whole = matmul(self.known[equation.inputs[0]], concatenate(*matrices, axis=-1))
            sizes = tuple(x.shape[-1] for x in matrices)
            parts = split(whole, sizes=sizes, axis=-1)
            self.known.update(zip((x.outputs[0] for x in several), parts, strict=True))


def _is_plain_product(equation: Equation, parts: Partition) -> bool:
    """Whether an equation is a product of rows with a matrix that is the same at all steps."""
    if equation.primitive is not matmul:
        return False
    a, b = equation.inputs
    return len(a.shape) == len(b.shape) == 2 and a.dtype == b.dtype and b in parts.fixed_values


class _Accumulating(_Rewriting):
    """Sums with products in them: each product is added to another term, in the same memory.

    That term must be one that nobody else looks at, and come from an equation of the step.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.parts = parts = partition(program)
        self.makers = {x: equation for equation in parts.loop for x in equation.outputs}
        self.sums: set[Equation] = set()  # those that are part of a larger sum
        for equation in program.equations:
            if equation.primitive is add:
                user = self.only_user(equation.outputs[0])
                if user is not None and user.primitive is add and _same_form(user, equation):
                    self.sums.add(equation)

    def write(self, equation: Equation) -> None:
        """A whole sum at once; other equations as they are."""
        if equation in self.sums:
            return
        terms = list(self._terms(equation)) if equation.primitive is add else []
        products = [x for x in terms if self._is_product(x, equation)]
        others = [x for x in terms if not any(x is y for y in products)]
        factors = self._factors(products)
        target = self._target(others, equation)
        if not products or (target is None and len(products) == len(factors) == 1):
            for part in [*self._inner(equation), equation]:
                super().write(part)
            return
        if target is None:
            total = matmul(*factors.pop(0))
        else:
            others = [x for x in others if x is not target]
            total = self.known[target]
            if isinstance(target.equation.primitive, Elementwise):  # a kernel adds the others first
                total, others = self._plus(total, others), []
        for a, b in factors:
            total = add_product(total, a, b)
        self.known[equation.outputs[0]] = self._plus(total, others)

    def _factors(self, products: Sequence[Var]) -> list[tuple[Any, Any]]:
        """What is multiplied: of products of what kernels compute, the factors side by side."""
        found, lefts, rights = [], [], []
        for x in products:
            a, b = (self.known[y] for y in x.equation.inputs)  # type: ignore[union-attr]
            maker = self.makers.get(x.equation.inputs[0])  # type: ignore[union-attr]
            by_kernel = maker is not None and isinstance(maker.primitive, Elementwise)
            if by_kernel and _is_plain_product(self.makers[x], self.parts):
                lefts.append(a)
                rights.append(b)
            else:
                found.append((a, b))
        if len(lefts) > 1:
            return [*found, (concatenate(*lefts, axis=-1), concatenate(*rights, axis=-2))]
        return [*found, *zip(lefts, rights, strict=True)]

    def _plus(self, total: Any, terms: Sequence[Any]) -> Any:
        for x in terms:
            total = total + (self.known[x] if type(x) is Var else x)
        return total

    def _inner(self, equation: Equation) -> list[Equation]:
        """The sums inside a sum, in order."""
        found: list[Equation] = []
        if equation.primitive is add:
            for x in equation.variables:
                if x.equation in self.sums:
                    found += [*self._inner(x.equation), x.equation]
        return found

    def _terms(self, equation: Equation) -> Iterator[Any]:
        """What a sum adds up."""
        for x in equation.inputs:
            if type(x) is Var and x.equation in self.sums:
                yield from self._terms(x.equation)
            else:
                yield x

    def _is_product(self, x: Any, total: Equation) -> bool:
        """Whether a term is a product of matrices in the loop, used for this sum alone."""
        return (
            type(x) is Var
            and x in self.makers
            and self.makers[x].primitive is matmul
            and self._may_be_written_over(x, total)
            and all(len(y.shape) == 2 for y in self.makers[x].inputs)
        )

    def _may_be_written_over(self, x: Any, total: Equation) -> bool:
        """Whether a term is a result of this step, of the sum's form, and for the sum alone."""
        (y,) = total.outputs
        if type(x) is not Var or x.equation is None or self.only_user(x) is None:
            return False
        if x in self.parts.fixed_values:
            return False
        if len(x.shape) != 2 or x.shape != y.shape or x.dtype != y.dtype:
            return False
        if x.equation.primitive is split:  # a part; of something that is a result, not an input
            (whole,) = x.equation.inputs
            return (
                x.equation.params["axis"] == -1
                and self.only_user(whole) is not None
                and whole.equation is not None
                and whole.equation.primitive in (matmul, add_product)
            )
        return x.equation.primitive in (matmul, add_product) or isinstance(
            x.equation.primitive, Elementwise
        )

    def _target(self, terms: Sequence[Any], total: Equation) -> Any:
        """The term that the products are added to: best one that is there before the loop."""
        possible = [x for x in terms if self._may_be_written_over(x, total)]
        ahead = [x for x in possible if x not in self.makers]
        matrices = [x for x in ahead if not isinstance(x.equation.primitive, Elementwise)]
        return next(iter([*matrices, *ahead, *possible]), None)


class _Splitting(_Rewriting):
    """Elementwise results that are only split: their parts are computed of parts."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.torn: dict[Var, tuple[int, ...]] = {}
        for equation in reversed(program.equations):
            if isinstance(equation.primitive, Elementwise):
                (y,) = equation.outputs
                sizes = {self._sizes_wanted(user, y) for user in self.users.get(y, [])}
                if len(sizes) == 1 and None not in sizes:
                    self.torn[y] = sizes.pop()  # type: ignore[assignment]

    def _sizes_wanted(self, user: Equation | None, x: Var) -> tuple[int, ...] | None:
        """In what parts a user of a value wants it; None for whole."""
        if user is None:
            return None
        if user.primitive is split:
            return tuple(user.params["sizes"]) if user.params["axis"] == -1 else None
        (y, *others) = user.outputs
        wide = x.shape[-1:] == y.shape[-1:]
        return self.torn.get(y) if wide and not others else None

    def write(self, equation: Equation) -> None:
        """Parts of what is torn; other equations as they are."""
        y = equation.outputs[0]
        if equation.primitive is split and equation.inputs[0] in self.torn:
            self.known.update(zip(equation.outputs, self.known[equation.inputs[0]], strict=True))
            return
        if y not in self.torn:
            super().write(equation)
            return
        sizes = self.torn[y]
        operands = [self._parts(x, sizes) for x in equation.inputs]
        self.known[y] = [
            equation.primitive(*(parts[k] for parts in operands), **equation.params)
            for k in range(len(sizes))
        ]

    def _parts(self, x: Any, sizes: tuple[int, ...]) -> Sequence[Any]:
        """A part of an operand for each part of the result."""
        value = self.known[x] if type(x) is Var else x
        if type(value) is list:
            return value
        if type(x) is Var and x.shape[-1:] == (sum(sizes),):
            parts: Sequence[Any] = split(value, sizes=sizes, axis=-1)
            return parts
        return [value] * len(sizes)


def _same_form(a: Equation, b: Equation) -> bool:
    (x,), (y,) = a.outputs, b.outputs
    return x.shape == y.shape and x.dtype == y.dtype
