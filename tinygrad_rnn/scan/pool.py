"""Which memory is kept for the next run?

A training step needs the same frames again and again: allocating them anew, and cutting them into
operands, would cost as much as a few steps. So frames are kept, and one is used again when nobody
looks at its memory any more. How many are kept is bounded, oldest out first. Read replay/frame.py
(NumPy's frames) first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

IDLE_BYTES = 1 << 30  # of frames that nobody uses
OF_ONE_PLAN = 32  # frames, in use or not: as for the layers of one form in one net
OF_ALL_PLANS = 256


class Frame(Protocol):
    """Memory and calls for runs of a plan: so many steps in one direction."""

    plan: Any
    busy: bool
    nbytes: int
    owners: list[Any]

    def fits(self, plan: Any, length: int, reverse: bool) -> bool:
        """Whether this frame is for such a run."""

    def idle(self) -> bool:
        """Whether nobody uses the memory, or a view of it."""

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs for these inputs."""


#: What makes a frame: of a plan, for so many steps, in one direction.
Maker: TypeAlias = Callable[[Any, int, bool], Frame]


class Pool:
    """The frames of all plans, the last used last."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._lock = threading.RLock()

    def run(
        self, make: Maker, plan: Any, inputs: Sequence[Any], length: int, reverse: bool
    ) -> list[Any]:
        """The outputs of a plan after `length` steps; see `interpret`, which defines them.

        make: the class of the plan's frames.
        """
        frame = self._take(make, plan, length, reverse)
        try:
            return frame.run(inputs)
        finally:
            frame.busy = False

    def _take(self, make: Maker, plan: Any, length: int, reverse: bool) -> Frame:
        """A frame for a run, marked busy: an idle one if there is one, else a new one."""
        with self._lock:
            for frame in reversed(self._frames):
                if frame.fits(plan, length, reverse) and frame.idle():
                    self._frames.remove(frame)
                    break
            else:
                frame = make(plan, length, reverse)
                self._make_room(plan)
            self._frames.append(frame)
            frame.busy = True
            return frame

    def _make_room(self, plan: Any) -> None:
        """Drop the oldest frames that are too many; what is in use lives on as long as it is."""
        own = [frame for frame in self._frames if frame.plan is plan]
        dropped = {
            *own[: max(len(own) - OF_ONE_PLAN + 1, 0)],
            *self._frames[: max(len(self._frames) - OF_ALL_PLANS + 1, 0)],
        }
        idle_bytes = 0
        for frame in reversed(self._frames):
            if frame not in dropped and frame.idle():
                idle_bytes += frame.nbytes
                if idle_bytes > IDLE_BYTES:
                    dropped.add(frame)
        self._frames = [frame for frame in self._frames if frame not in dropped]

    @property
    def newest(self) -> Frame | None:
        """The frame that was used last."""
        return self._frames[-1] if self._frames else None

    def held_with(self, arrays: Sequence[Any]) -> list[Any]:
        """The memory of the frames that own some of these arrays: they hold on to all of it."""
        wanted = {id(array) for array in arrays}
        with self._lock:
            return [
                mine
                for frame in self._frames
                if not wanted.isdisjoint(map(id, frame.owners))
                for mine in frame.owners
            ]

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._frames.clear()


pool = Pool()
