"""How are the values of a tensor printed?

By NumPy, with the options that `set_printoptions` sets, which are PyTorch's. What is printed around
the values (dtype, device, where they came from) is in `tensor.py`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

import numpy as np

from tinygrad_rnn.backend import Array, to_numpy


@dataclass
class Options:
    """precision: digits after the point.  threshold: of how many values on only edges are printed.

    edgeitems: values at each edge.  linewidth: characters in a line.
    sci_mode: False to print no powers of ten; None to leave it to NumPy.
    """

    precision: int = 4
    threshold: int = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


PROFILES = {
    "default": Options(),
    "short": Options(precision=2, edgeitems=2),
    "full": Options(threshold=sys.maxsize),
}
_options = Options()


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Print tensors with these `Options` from now on; what is None stays as it is.

    profile: "default", "short" or "full" sets all of them first.
    sci_mode: False prints no powers of ten; True, to print only such, does not exist here.
    """
    if sci_mode:
        raise NotImplementedError("set_printoptions: sci_mode is False or None here")
    if profile is not None and profile not in PROFILES:
        raise ValueError(
            f"set_printoptions: profile is one of {', '.join(PROFILES)}, not {profile}"
        )
    given = Options(precision, threshold, edgeitems, linewidth, sci_mode)  # type: ignore[arg-type]
    for option in fields(Options):
        if profile is not None:
            setattr(_options, option.name, getattr(PROFILES[profile], option.name))
        if getattr(given, option.name) is not None:
            setattr(_options, option.name, getattr(given, option.name))


def text_of(array: Array, prefix: str) -> str:
    """The values as text, lines after the first indented by the length of the prefix."""
    return np.array2string(
        to_numpy(array),
        max_line_width=_options.linewidth,
        precision=_options.precision,
        suppress_small=_options.sci_mode is False or None,
        separator=", ",
        prefix=prefix,
        threshold=_options.threshold,
        edgeitems=_options.edgeitems,
    )
