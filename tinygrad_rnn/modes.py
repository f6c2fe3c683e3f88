"""Modes: whether operations are being recorded, and who watches them.

Each thread has its own, as in PyTorch: one thread's no_grad does not stop another's recording.
What recording is stands in `graph.py`; the watch that stops at the first NaN in `anomaly.py`.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    """This thread's modes."""

    recording = True  # no_grad, enable_grad, set_grad_enabled
    watches: tuple[Watch, ...] = ()  # who looks at every operation
    profile: Any = None  # who also times the parts of recurrences (diagnose/profile.py)
    trace: Any = None  # the step of a recurrence that is being written down (program.py)
    observer: Any = None  # runs recurrences instead of scan and unroll (diagnose/observe.py)


current = _Mode()


class set_grad_enabled:
    """Switch recording on or off: at once when called, and back again at the end of a `with`.

    Also a decorator, of plain and of generator functions.
    """

    def __init__(self, mode: bool) -> None:
        self._value = bool(mode)
        self._earlier = [current.recording]
        current.recording = self._value

    def __enter__(self) -> None:
        current.recording = self._value

    def __exit__(self, *exc_info: object) -> None:
        current.recording = self._earlier[-1]

    def __call__(self, function: F) -> F:
        """The function, with the mode switched while it runs."""
        current.recording = self._earlier[-1]  # the decorated calls switch, the decoration does not
        return _decorate(lambda: set_grad_enabled(self._value), function)


class _Recording:
    """`no_grad` and `enable_grad`: a context manager and a decorator."""

    _value: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """With a function (a decorator without parentheses), the decorated function."""
        made = super().__new__(cls)
        if function is None:
            return made
        made.__init__()  # type: ignore[misc]
        return made(function)

    def __init__(self, function: None = None) -> None:
        self._earlier: list[bool] = []

    def __enter__(self) -> None:
        self._earlier.append(current.recording)
        current.recording = self._value

    def __exit__(self, *exc_info: object) -> None:
        current.recording = self._earlier.pop()

    def __call__(self, function: F) -> F:
        return _decorate(type(self), function)


class no_grad(_Recording):
    """Do not record: results do not require gradients. A context manager and a decorator."""

    _value = False


class enable_grad(_Recording):
    """Record again inside a no_grad. A context manager and a decorator."""

    _value = True


def _decorate(mode: Callable[[], Any], function: F) -> F:
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stepwise(*args: Any, **kwargs: Any) -> Any:
            """Hold the mode while the generator runs, not while its consumer does."""
            generator = function(*args, **kwargs)
            resume: Callable[..., Any] = generator.send
            sent: tuple[Any, ...] = (None,)
            while True:
                try:
                    with mode():
                        item = resume(*sent)
                except StopIteration as stop:
                    return stop.value
                try:
                    resume, sent = generator.send, ((yield item),)
                except BaseException as error:  # thrown at the yield, or GeneratorExit from close
                    resume, sent = generator.throw, (error,)

        return stepwise  # type: ignore[return-value]

    @functools.wraps(function)
    def within(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return function(*args, **kwargs)

    return within  # type: ignore[return-value]


def inference_mode(mode: bool = True) -> no_grad | enable_grad:
    """As no_grad; PyTorch's further restrictions have no counterpart here. False: enable_grad."""
    return no_grad() if mode else enable_grad()


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require gradients are being recorded, in this thread."""
    return current.recording


class Watch:
    """Somebody who looks at every operation of this thread, from entering to leaving it.

    Subclasses override what they want to see. They must not change what they look at.
    """

    def before(self, primitive: Any, operands: Sequence[Any]) -> None:
        """A primitive will be applied to operands, of which at least one is a Tensor."""

    def after(
        self, primitive: Any, operands: Sequence[Any], params: dict[str, Any], made: Any
    ) -> None:
        """It has been, and has made a Tensor, or a list of them.

        Not called if it failed, or is tried again on operands of one dtype.
        """

    def recorded(self, node: Any) -> None:
        """An operation is being recorded, as this node of the graph: between before and after."""

    def pulling(self, turn: Any) -> Iterator[None]:
        """A node has its `Turn` in a backward pass (`graph.py`), which happens at the yield."""
        yield

    def summing(self, products: Any) -> Iterator[None]:
        """A weight's gradient, collected over many nodes, is summed up at the yield."""
        yield

    def __enter__(self) -> Any:
        current.watches = (*current.watches, self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        current.watches = tuple(watch for watch in current.watches if watch is not self)
