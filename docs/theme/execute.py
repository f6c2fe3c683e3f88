"""How does a page show what its code does? The build runs the code.

    ```python exec="on"         the code, and below it what it prints and shows
    ```python exec="hidden"     only what it prints and shows

The blocks of a page share their names, in order. `show(x)` puts a matplotlib figure, or anything
that draws itself as SVG, below the block. Code that raises stops the build.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
from typing import Any

BLOCK = re.compile(r'^```python exec="(on|hidden)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)

os.environ["TQDM_DISABLE"] = "1"  # no progress bars in the log of the build
os.environ.setdefault("OMP_NUM_THREADS", "2")


def executed(markdown: str, page: str) -> str:
    """The page with its code run: what each block printed and showed stands below it."""
    shown: list[str] = []
    names: dict[str, Any] = {"__name__": page, "show": lambda x: shown.append(_as_svg(x))}

    def run(block: re.Match[str]) -> str:
        kind, code = block.groups()
        line = markdown.count("\n", 0, block.start()) + 1
        printed = io.StringIO()
        shown.clear()
        # The empty lines let tracebacks name the line of the page.
        program = compile("\n" * line + code, f"docs/{page}", "exec")
        with contextlib.redirect_stdout(printed):
            exec(program, names)
        parts = [f"```python\n{code}```"] if kind == "on" else []
        output = printed.getvalue().strip("\n")
        if output:
            parts.append(f"```{{.text .output}}\n{output}\n```")
        return "\n\n".join([*parts, *shown])

    start = time.perf_counter()
    text = BLOCK.sub(run, markdown)
    if text != markdown:
        print(f"ran      -  {page}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return text


def _as_svg(x: Any) -> str:
    """A figure or drawing as a block of HTML, in one line, since an empty line would end it."""
    if hasattr(x, "savefig"):
        from matplotlib import rc_context

        file = io.StringIO()
        with rc_context({"svg.hashsalt": "tinygrad_rnn"}):
            x.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
    else:
        text = x._repr_svg_()
    text = text[text.index("<svg") :]
    return f'<div class="figure">{" ".join(text.split())}</div>'
