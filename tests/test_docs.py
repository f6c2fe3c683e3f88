"""Prose that executes cannot rot: the tour runs, the reading path leads to files that exist."""

import itertools
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


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
def test_links_between_pages_and_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_link_test_that_cannot_fail_would_be_no_test():
    assert PAGES, "no pages found"
    assert any("](" in page.read_text(encoding="utf-8") for page in PAGES)
