"""The documentation builds without a warning, and fits a screen and a telephone."""

import html
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = ["index", "gallery/level_sets", "api/priors", "tutorial"]

# What is wider than the window, or cut at the right edge: a page says so to the one that frames it.
MEASURE = """<script>
addEventListener("load", () => {
  const cut = [...document.querySelectorAll("article pre > code, article h1, article h2, article h3, article img")]
    .filter(e => e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth)
    .map(e => e.textContent.slice(0, 60))
  const buttons = document.querySelectorAll("article nav.md-code__nav button").length
  parent.postMessage({width: document.documentElement.scrollWidth, window: innerWidth, cut, buttons}, "*")
})
</script>"""
# A window of a browser has a least width; a frame has not.
FRAME = """<title></title><body style="margin:0"><iframe style="border:0" width={width} height=2000 src="{page}"></iframe>
<script>addEventListener("message", e => {{ document.title = JSON.stringify(e.data) }})</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it, where that has been made."""
    missing = [name for name in ("mkdocs", "mkdocstrings", "latex2mathml") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra `docs` is not installed: {missing}")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", "docs/mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_links_hold_from_disk(site):
    """Every link of every page leads to a file, and to a place in it; nothing is fetched from elsewhere."""
    pages = {page: page.read_text() for page in site.rglob("*.html") if page.name != "404.html"}
    places = {page: set(re.findall(r'\bid="?([^\s">]+)', text)) for page, text in pages.items()}
    assert len(pages) > 40
    for page, text in pages.items():
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?https?://', text), page
        for target in re.findall(r'<(?:a|img|link|script)\b[^>]*?\s(?:href|src)="?([^\s">]+)', text):
            if not re.match(r"https?:|mailto:|data:|javascript:", target):
                path, _, place = target.partition("#")
                there = (page.parent / path).resolve() if path else page
                assert there.is_file(), f"{page.relative_to(site)}: {target}"
                assert not place or there not in places or place in places[there], f"{page.relative_to(site)}: {target}"


def test_signatures_of_the_interface(site):
    """Types and defaults stand in the signatures of functions and of modules, whose fields make theirs."""
    text = re.sub(r"<[^>]+>", "", (site / "api" / "priors.html").read_text())
    flat = re.sub(r"\s+", "", html.unescape(text))
    assert "GPPrior(kernel:KernelT,X:Observed,mean:AnyMean=ZeroMean(),jitter:Float[" in flat
    assert "n_features:int=1024" in flat
    assert ')->Float[Array,""]' in flat
    for page in (site / "api").glob("*.html"):
        if page.stem != "index":
            assert "Source code in" in page.read_text(), page.stem


def dump(folder: pathlib.Path, address: str, *options: str) -> str:
    """What a browser makes of a page, once its scripts have run."""
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder}/user",
    ]
    command += ["--virtual-time-budget=5000", *options, "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_search_from_disk(site, tmp_path):
    assert re.search(
        r"[1-9]\d* matching documents", dump(tmp_path, f"{(site / 'index.html').as_uri()}?q=feature_error")
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", PAGES)
def test_pages_in_a_browser(site, name, width, tmp_path):
    page = site / f"{name}.html"
    measured, frame = page.with_name(f"{page.stem}_measured.html"), tmp_path / "frame.html"
    measured.write_text(page.read_text().replace("</head>", MEASURE + "</head>", 1))
    frame.write_text(FRAME.format(width=width, page=measured.as_uri()))
    dumped = dump(tmp_path, frame.as_uri(), f"--window-size={width},2000", f"--screenshot={tmp_path}/page.png")
    measured.unlink()
    title = re.search(r"<title>(\{.*?\})</title>", dumped, flags=re.DOTALL)
    assert title, dumped[-500:]
    found = json.loads(html.unescape(title[1]))
    assert found["width"] <= found["window"] == width
    assert not found["cut"]
    assert found["buttons"]
    assert (tmp_path / "page.png").stat().st_size > 20_000
