"""The examples run top to bottom."""

import os
import pathlib
import re
import subprocess
import sys

import pages
import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def test_quickstart(tmp_path):
    command = [sys.executable, str(EXAMPLES / "quickstart.py"), "--fast", "--figures", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    names = {"co2_paths.png", "co2_parts.png", "co2_growth.png", "co2_first_passage.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for words in (
        "Parts add up to the paths within",
        "Growth of the yearly mean",
        "First monthly mean above 380 ppm",
        "co2_growth.png",
    ):
        assert words in done.stdout


def run(names, folder):
    """Pages and scripts, each from nothing."""
    command = [sys.executable, "-W", "error", str(ROOT / "tests" / "pages.py"), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


GALLERY = sorted((EXAMPLES / "gallery").glob("*.py"))


@pytest.mark.parametrize("part", range(3))
def test_gallery(part, tmp_path):
    scripts = GALLERY[part::3]
    run([str(path.relative_to(ROOT)) for path in scripts], tmp_path)
    for path in scripts:
        figures = {figure.name for figure in (tmp_path / path.stem).iterdir()}
        assert figures
        # Its page shows them.
        page = (ROOT / "docs" / "pages" / "gallery" / f"{path.stem}.md").read_text()
        shown = set(re.findall(r"\.\./figures/([a-z_0-9]+\.png)", page))
        assert shown
        assert shown <= figures
        assert all((ROOT / "docs" / "pages" / "figures" / name).exists() for name in shown)
        assert path.stem in (ROOT / "docs" / "mkdocs.yml").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, monkeypatch):
    import nbclient
    import nbformat

    # The kernel of the environment that runs the tests, whichever kernels are installed elsewhere.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    # One of them works for longer than it compiles.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0" if path.stem.startswith("03") else "1")
    monkeypatch.setenv("PATHWISE_GP_FAST", "1")
    monkeypatch.setenv("PATH", str(pathlib.Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(fresh, timeout=600, kernel_name="python3").execute()
    for cell, kept in zip(fresh.cells, stored.cells, strict=True):
        if cell.cell_type == "code":
            # What the kernel's server logs comes in stderr too; a warning of the code has its class before the colon.
            said = "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
            assert not re.search(r"Warning: ", said), said
            kinds = {output.output_type for output in cell.outputs if output.get("name") != "stderr"}
            assert "error" not in kinds
            # Printed lines may come in one piece or several.
            assert kinds == {output.output_type for output in kept.outputs}, "the stored outputs are of another version"


@pytest.mark.parametrize("kind", ["readme", "gallery", "guides"])
def test_code_of_the_pages_runs(kind, tmp_path):
    kind_of = lambda name: "readme" if name == "README.md" else "gallery" if "/gallery/" in name else "guides"
    names = [name for name in pages.pages() if kind_of(name) == kind]
    assert len(names) == {"readme": 1, "gallery": len(GALLERY)}.get(kind, len(names)) >= 1
    run(names, tmp_path)


def test_benchmarks_run():
    # Whether they run, with whatever other libraries there are; `make bench` times them.
    command = [sys.executable, str(ROOT / "tests" / "benchmarks"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    titles = [line for line in done.stdout.splitlines() if line.startswith("### ")]
    assert len(titles) == 22
    assert "failed" not in done.stdout
    assert done.stdout.count("| pathwise_gp |") == 9


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == [
        "01_pathwise_numpyro.ipynb",
        "02_regression_nuts_svi_map.ipynb",
        "03_coal_mining_cox_process.ipynb",
        "04_svgp_minibatches.ipynb",
    ]
