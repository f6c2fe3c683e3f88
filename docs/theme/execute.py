"""How does a page show code and what it does? The build fetches the code, and runs it.

    ```python
    # from examples/hello.py: Net, train      the source of these definitions; of the whole file
    ```                                       without names
    ```python exec="on"         the code, and below it what it prints and shows
    ```python exec="hidden"     only what it prints and shows

The blocks that a page runs share their names, in order. `show(x)` puts a matplotlib figure, or
anything that draws itself as SVG, below the block. Code that raises stops the build.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FETCHED = re.compile(r"^# from (\S+\.py)(?:: ([\w, ]+))?$", re.MULTILINE)
BLOCK = re.compile(r'^```python exec="(on|hidden)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)

os.environ["TQDM_DISABLE"] = "1"  # no progress bars in the log of the build
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models of pages are small


def fetched(markdown: str) -> str:
    """The page with the source of the definitions that it names."""
    return FETCHED.sub(lambda found: _source(found[1], found[2]), markdown)


def _source(path: str, wanted: str | None) -> str:
    """The source of some classes, functions and constants of a file, or of all of it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if wanted is None:
        return text.rstrip("\n")
    lines, names = text.splitlines(), wanted.split(", ")
    places = {}
    for node in ast.parse(text).body:
        decorators = [decorator.lineno for decorator in getattr(node, "decorator_list", [])]
        place = slice(min([node.lineno, *decorators]) - 1, node.end_lineno)
        for name in _defined_by(node):
            places[name] = place
    missing = [name for name in names if name not in places]
    if missing:
        raise ValueError(f"{path} defines no {', '.join(missing)}")
    return "\n\n\n".join("\n".join(lines[places[name]]) for name in names)


def _defined_by(node: ast.stmt) -> list[str]:
    """The names that a statement gives to something."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return [getattr(node, "name", "")]


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
