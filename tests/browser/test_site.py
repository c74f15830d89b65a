"""The documentation's site, as `scripts/docs` builds it: it works from the file system, without a network."""

import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, BrowserContext, Request, expect

ROOT = Path(__file__).parents[2]
PHONE = {"width": 375, "height": 740}
# Pages with the widest tables, code and pictures.
WIDE = ("index", "tutorial/5", "reference/app", "reference/names", "design", "clients", "telemetry", "shutdown")


@pytest.fixture(scope="session")
def site() -> Path:
    """Build the site; a warning fails the build."""
    subprocess.run([ROOT / "scripts" / "docs"], check=True, stdout=subprocess.PIPE)
    return ROOT / "site"


@pytest.fixture
def offline(browser: Browser) -> Iterator[BrowserContext]:
    """Return a phone without a network; what a page asks for elsewhere, or cannot find or do, fails the test."""
    found: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            found.append(request.url)

    with browser.new_context(offline=True, viewport=PHONE) as context:  # type: ignore[arg-type]
        context.on("request", note)
        context.on("requestfailed", lambda request: found.append(request.url))
        context.on("weberror", lambda error: found.append(str(error.error)))
        yield context
    assert found == []


@pytest.mark.parametrize("name", WIDE)
def test_a_page_works_offline_on_a_phone(site: Path, offline: BrowserContext, name: str) -> None:
    """Every picture is there, and the page is not wider than the screen: tables and code scroll by themselves."""
    page = offline.new_page()
    page.goto((site / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")


def test_the_search_works_offline(site: Path, offline: BrowserContext) -> None:
    """From the file system, where browsers start no workers."""
    page = offline.new_page()
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto((site / "index.html").as_uri())
    page.get_by_role("button", name="Search").first.click()
    page.locator("input[aria-autocomplete]").fill("revalidate")
    page.get_by_role("option", name="EventSourceApp").first.click()
    expect(page).to_have_url(re.compile(r"/site/reference/app\.html"))


# Links


class Addresses(HTMLParser):
    """The links of a page, and the places of it that links can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = {""}
        self.loaded: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given.get("id", ""), given.get("name", "")}
        self.loaded |= {given.get("src", ""), given["href"] if tag == "link" else ""}
        if "href" in given and not re.match(r"[a-z]+:", given["href"]):
            self.links.add(unquote(given["href"]))


def test_no_link_of_the_site_is_dead(site: Path) -> None:
    """Each link of each page leads to a file of the site, and to a place in it; those of the reference, too."""
    pages = {path.resolve(): Addresses(path) for path in site.rglob("*.html") if path.name != "404.html"}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            name, _, place = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            known = pages[target].places if target in pages else {""}
            if not target.is_file() or place not in known:
                dead.append(f"{path.relative_to(site.resolve())}: {link}")
    assert dead == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and pictures are the site's own."""
    pages = [Addresses(path) for path in site.rglob("*.html")]
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    loaded = set().union(*(page.loaded for page in pages)) | set(re.findall(r"url\([\"']?([^)\"']+)", styles))
    assert [one for one in loaded if re.match("(https?:)?//", one)] == []


def test_blocks_of_yaml_can_be_read(site: Path) -> None:
    """By the parser of the environment in which the site was built."""
    script = "import sys, yaml; [*yaml.safe_load_all(sys.stdin.read())]"
    for path in (site.parent / "docs").rglob("*.md"):
        for block in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
            python = ROOT / ".venv-docs" / "bin" / "python"
            subprocess.run([python, "-c", script], input=block, text=True, check=True)
