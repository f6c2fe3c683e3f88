"""How do docstrings, which are written to be read as text, become pages of the reference?

Their doctests are marked as code; the rest is Markdown already. A Griffe extension, which
mkdocs.yml names.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*(?:\n\n\1>>> .*(?:\n(?! *$).*)*)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Marks the doctests of every docstring as code."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Change the docstring of one module, class, function or constant."""
        if obj.docstring is not None:
            text = inspect.cleandoc(obj.docstring.value)
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", text)
