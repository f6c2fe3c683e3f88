"""How far are the recurrent layers from PyTorch's? Writes docs/parity.md.

    python -m benchmarks.parity

The differences are those that tests/parity/ holds against its tolerances; test_recurrent.py and
test_training_curve.py there say how they are measured.
"""

import datetime
import platform
from pathlib import Path

import numpy as np
import torch

from tests.parity import test_recurrent as layers
from tests.parity import test_training_curve as curve

PAGE = Path(__file__).parents[1] / "docs" / "parity.md"

TEXT = """# Parity with PyTorch

The largest absolute difference between this package and PyTorch, given the same weights, inputs and
non-zero initial states: of outputs and final states ("values"), and of the gradients of the input,
the initial states and every parameter. Each row is the worst over bias and no bias, over batches,
batches with `batch_first` and single sequences. T = {T}, B = {B}, D = {D}, H = {H}, and P = {P}
with projections. The tests allow {TOLERANCE[float64]:g} in float64 and {TOLERANCE[float32]:g} in
float32.

{table}

A character model (embedding, two-layer LSTM, linear output) is trained for {steps} steps of Adam in
float32, from equal weights on equal data: the loss goes from {first:.3f} to {last:.3f} nats per
character, and differs from PyTorch's by at most {apart:.1e} at any step. The tests allow
{allowed:g}.

Written by `python -m benchmarks.parity` on {date}: {versions}.
"""


def table() -> str:
    """The largest differences of every row, as a Markdown table."""
    lines = [
        "| | layers | directions | values, float64 | gradients, float64 "
        "| values, float32 | gradients, float32 |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, ...], list[layers.Case]] = {}
    for case in [*layers.layer_cases(), *layers.cell_cases()]:
        groups.setdefault(label(case), []).append(case)
    for title, cases in groups.items():
        figures = [f"{x:.0e}" for dtype in layers.TOLERANCE for x in worst(cases, dtype)]
        lines.append(f"| {' | '.join([*title, *figures])} |")
    return "\n".join(lines)


def label(case: layers.Case) -> tuple[str, ...]:
    """The row that a case belongs to: what it is, layers, directions."""
    options = case.options
    kind = "projected" if "proj_size" in options else options.get("nonlinearity")
    name = f"{case.name} ({kind})" if kind else case.name
    if "num_layers" not in options:
        return name, "", ""
    return name, str(options["num_layers"]), "2" if options["bidirectional"] else "1"


def worst(cases: list[layers.Case], dtype: str) -> tuple[float, float]:
    """The largest difference of a value, and of a gradient."""
    found = [item for case in cases for item in layers.compare(case, dtype).items()]
    return (
        max(difference for name, difference in found if not name.startswith("d")),
        max(difference for name, difference in found if name.startswith("d")),
    )


def main() -> None:
    """Measure, and write the page."""
    theirs, ours = curve.losses()
    page = TEXT.format(
        **vars(layers),
        table=table(),
        steps=len(ours),
        first=ours[0],
        last=ours[-1],
        apart=np.abs(np.subtract(theirs, ours)).max(),
        allowed=curve.TOLERANCE,
        date=datetime.date.today().isoformat(),
        versions=f"Python {platform.python_version()}, NumPy {np.__version__}, PyTorch "
        f"{torch.__version__}, {platform.machine()}",
    )
    PAGE.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
