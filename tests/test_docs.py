"""Prose that executes cannot rot: the tour runs, the reading path leads to files that exist."""

import itertools
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

# Pages whose code is run, and compared with what stands below it, by tests and not by the build.
TESTED = {"README.md", "docs/scan.md", "docs/derivations.md"}


def test_the_tour_runs_and_its_claims_hold(capsys):
    runpy.run_path(str(ROOT / "docs" / "tour.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "tanh       keeps (1, 3)" in printed
    assert "all agree" in printed


def test_the_code_of_scan_md_runs_and_prints_what_stands_below_it(capsys):
    """A text block is what the Python block above it prints; […] stands for lines left out."""
    page = ROOT / "docs" / "scan.md"
    blocks = re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"))
    names = {}
    capsys.readouterr()
    for (language, code), (below, text) in itertools.pairwise([*blocks, ("", "")]):
        if language == "text":
            assert below != "text", f"no code prints this:\n{text}"
            continue
        assert language == "python"
        exec(compile(code, str(page), "exec"), names)
        printed, expected = capsys.readouterr().out.strip(), text.strip() if below == "text" else ""
        pattern = ".*".join(re.escape(part.strip("\n")) for part in expected.split("[…]"))
        same = re.fullmatch(pattern, printed, re.DOTALL)
        assert same, f"below\n\n{code}\nstands\n\n{expected}\n\nbut it prints\n\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_on_a_page_is_run_or_fetched(page):
    """By the build (docs/theme/execute.py), or by a test; an ADR tells of code that was."""
    if str(page.relative_to(ROOT)) in TESTED or page.parent.name == "adr":
        return
    for mark, code in re.findall(
        r"(?ms)^```python(.*?)\n(.*?)^```$", page.read_text(encoding="utf-8")
    ):
        run = mark in (' exec="on"', ' exec="hidden"')
        fetched = re.fullmatch(r"# from \S+\.py(: [\w, ]+)?\n", code)
        assert run or fetched, f"{page.name}: neither run nor fetched:\n{code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_pages_fetch_is_there(page):
    for path, names in re.findall(
        r"(?m)^# from (\S+\.py)(?:: ([\w, ]+))?$", page.read_text(encoding="utf-8")
    ):
        defined = (ROOT / path).read_text(encoding="utf-8")
        for name in filter(None, names.split(", ")):
            assert re.search(rf"(?m)^(class |def )?{name}\b", defined), f"{page.name}: {name}"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert {page for page in pages if page not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_and_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_link_test_that_cannot_fail_would_be_no_test():
    assert PAGES, "no pages found"
    assert any("](" in page.read_text(encoding="utf-8") for page in PAGES)
