"""What does the site need that Markdown does not have? Three things, done while mkdocs builds.

Python blocks marked `exec` are run, and what they print and show stands below them (execute.py).
Formulae become MathML, which browsers draw by themselves: no script, no font, no network. Links to
files of the repository lead to pages with their source.
"""

from __future__ import annotations

import ast
import html as markup
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from execute import executed, fetched

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.DOTALL
)


def on_startup(**_: Any) -> None:
    """Let the code of pages import the examples."""
    sys.path.insert(0, str(ROOT / "examples"))


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file of the repository that a page links to."""
    wanted = {
        path
        for file in files.documentation_pages()
        for _, path in _outside(file.src_uri, file.content_string)
    }
    wanted |= {file for folder in wanted for file in _files_in(folder)}
    for path in sorted(wanted):
        content = _folder_page(path) if (ROOT / path).is_dir() else _source_page(path)
        files.append(File.generated(config, _page_of(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Run what is to be run, and let links to files of the repository lead to their pages."""
    here = posixpath.dirname(page.file.src_uri)
    for target, path in {*_outside(page.file.src_uri, markdown)}:
        url = posixpath.relpath(_page_of(path), here or ".")
        markdown = re.sub(rf"(?<=\]\(){re.escape(target)}(?=[)#])", url, markdown)
    return executed(fetched(markdown), page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulae into MathML."""
    return FORMULA.sub(_mathml, html)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return convert(markup.unescape(found[2]).strip(), display=display)


def _outside(page: str, markdown: str) -> Iterator[tuple[str, str]]:
    """(link target, path from the root) of the links of a page to what is no page of docs/."""
    if page.startswith("source/"):
        return
    for target in LINK.findall(markdown):
        if re.match(r"[a-z]+:", target):
            continue
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        is_page = path.startswith("docs/") and path.endswith((".md", ".svg", ".png"))
        if not is_page and not path.startswith("..") and (ROOT / path).exists():
            yield target, path


def _page_of(path: str) -> str:
    name = posixpath.join(path, "index") if (ROOT / path).is_dir() else path
    return f"source/{name}.md"


def _files_in(folder: str) -> list[str]:
    """The Python files directly below a folder; nothing for a file."""
    return sorted(str(file.relative_to(ROOT)) for file in (ROOT / folder).glob("*.py"))


def _source_page(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8").rstrip("\n")
    if path.endswith(".md"):
        return LINK.sub(lambda link: link[0] if ":" in link[0] else "#", text)
    language = {".py": "python", ".toml": "toml"}.get(Path(path).suffix, "text")
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f'# {path}\n\n{fence}{language} linenums="1"\n{text}\n{fence}\n'


def _folder_page(path: str) -> str:
    """The files of a folder, each with the first line of what it says of itself."""
    rows = ["| file | |", "|---|---|"]
    for file in sorted((ROOT / path).glob("*.*")):
        first = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        target = f"{file.name}.md"
        if file.suffix == ".py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            first = (ast.get_docstring(tree) or "").partition("\n")[0]
        elif path.startswith("docs/"):
            target = posixpath.relpath(
                f"{path.removeprefix('docs/')}/{file.name}", f"source/{path}"
            )
        cell = first.replace("|", r"\|")
        rows.append(f"| [`{file.name}`]({target}) | {cell} |")
    return f"# {path}/\n\n" + "\n".join(rows) + "\n"
