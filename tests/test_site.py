"""The built site: no page needs the network, formulae are formulae, what pages ran is there.

Skipped where `mkdocs build` has not run; .ci/run builds the site and then runs these.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
PAGES = sorted(SITE.rglob("*.html"))
CHAPTERS = sorted(
    f"{folder}/{page.stem}"
    for folder in ("chapters", "ko")
    for page in (ROOT / "docs" / folder).glob("*.md")
)

pytestmark = pytest.mark.skipif(not PAGES, reason="the site is not built: mkdocs build --strict")


class Needs(HTMLParser):
    """The addresses that a browser fetches to show a page, other than those of links to click."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src"))
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href"))


def needed_by(page):
    parser = Needs()
    parser.feed(page.read_text(encoding="utf-8"))
    return [address for address in parser.addresses if address]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(SITE)))
def test_a_page_needs_only_files_of_the_site(page):
    for address in needed_by(page):
        if address.startswith("data:") or page.name == "404.html":
            continue
        assert not re.match(r"(https?:)?//", address), address
        assert (page.parent / address.partition("?")[0]).exists(), address


def test_style_sheets_fetch_nothing_from_elsewhere():
    sheets = [*SITE.rglob("*.css")]
    assert sheets
    for sheet in sheets:
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text("utf-8"))


def test_formulae_are_mathml():
    formulae = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert 'class="arithmatex"' not in text, page.name
        for formula in re.findall(r"<math.*?</math>", text, re.DOTALL):
            formulae += 1
            ElementTree.fromstring(formula)
            written = "".join(re.findall(r">([^<]*)<", formula))
            assert "\\" not in written, f"{page.name}: LaTeX was left over in {written}"
    assert formulae > 100


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_shows_a_figure_that_the_build_drew(chapter):
    assert '<div class="figure"><svg' in (SITE / f"{chapter}.html").read_text(encoding="utf-8")
