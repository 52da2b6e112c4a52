"""The rules of the house, read off the source."""

import ast
import importlib
import inspect
import pathlib
import re
import subprocess
import sys
import tomllib

import equinox as eqx
import pytest

import pathwise_gp as pgp

PACKAGE = pathlib.Path(inspect.getfile(pgp)).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
# A module may import from a floor below its own, or from its own folder.
FLOORS = {
    "_types": 0,
    "_tables": -1,
    "_placement": -1,
    "_modules": 0,
    "_checks": 0,
    "_fields": 1,
    "_batched": 1,
    "_numerics": 1,
    "_means": 2,
    "_addresses": 2,
    "_fit": 7,
    "_features": 2,
    "_kernels": 3,
    "_functionals": 4,
    "_scaling": 4,
    "_solvers": 5,
    "_paths": 5,
    "_priors": 6,
    "_guides": 7,
    "_samplers": 8,
    "_descent": 1,
    "_progress": 0,
    "_laplace": 9,
    "calculus": 9,
    "ensembles": 9,
    "estimator": 9,
    "optimise": 9,
    "plots": 9,
    "rollout": 9,
    "scores": 9,
    "acquisition": 10,
    "design": 10,
    "level_sets": 10,
    "numpyro_bridge": 10,
}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """The rooms of the package that a module imports from, and the other packages."""
    inside, outside = set(), set()
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            target = (*base, *(node.module or "").split("."))
            names = [alias.name for alias in node.names]
            found = [target[1]] if len(target) > 1 and target[1] else names
            inside.update(found)
        elif isinstance(node, ast.ImportFrom):
            outside.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            outside.update(alias.name.split(".")[0] for alias in node.names)
    return inside, outside


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    if path == PACKAGE / "__init__.py":
        return
    inside, outside = imports(path)
    here = room(path)
    for other in inside - {here}:
        assert FLOORS[other] < FLOORS[here] or (other, here) == ("_checks", "_fields"), f"{here} imports {other}"
    extra = {
        "numpyro_bridge": {"numpyro"},
        "plots": {"matplotlib"},
        "estimator": {"sklearn"},
        "level_sets": {"contourpy"},
    }
    allowed = {*sys.stdlib_module_names, "jax", "jaxtyping", "equinox", "numpy", "optax", "scipy", "tqdm"}
    assert outside <= allowed | extra.get(here, set())


def test_versions_of_python_are_those_of_the_project():
    root = PACKAGE.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())
    oldest = project["project"]["requires-python"].removeprefix(">=")
    stated = [line.rsplit(" ")[-1] for line in project["project"]["classifiers"] if "Python :: 3." in line]
    assert stated[0] == oldest == project["tool"]["basedpyright"]["pythonVersion"]
    matrix = (root / ".github" / "workflows" / "ci.yml").read_text()
    assert set(re.findall(r'python(?:-version)?: "(3\.\d+)"', matrix)) == set(stated)
    assert f"Python {oldest} or newer" in (root / "README.md").read_text()
    assert f"Python {oldest} or newer is needed" in (root / "Makefile").read_text()
    assert f"\nOLDEST = {oldest.removeprefix('3.')}\n" in (root / ".ci" / "others.py").read_text()


def test_the_package_does_not_import_numpyro():
    code = "import sys, pathwise_gp; sys.exit('numpyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_source_is_short_and_names_no_precision(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert not names & {"float32", "float64"}


def modules():
    found, waiting = set(), [eqx.Module]
    while waiting:
        for subclass in waiting.pop().__subclasses__():
            if subclass.__module__.startswith("pathwise_gp.") and subclass not in found:
                found.add(subclass)
                waiting.append(subclass)
    return found


def test_classes_are_abstract_or_final():
    for cls in modules():
        if cls.__subclasses__():
            assert cls.__name__.startswith("Abstract"), f"{cls.__name__} is subclassed"
        if cls.__name__.startswith("Abstract"):
            with pytest.raises(TypeError):
                cls()


def of_the_uses():
    """The public names of the modules that are imported when first used, and of the bridge."""
    for module in (*pgp._USES, "numpyro_bridge"):
        here = importlib.import_module(f"pathwise_gp.{module}")
        # A package lists what it exports; a module has names of its own and of others.
        own = "pathwise_gp." if hasattr(here, "__path__") else here.__name__
        for name, value in vars(here).items():
            if not name.startswith("_") and callable(value) and str(getattr(value, "__module__", "")).startswith(own):
                yield module, name, value


def test_the_pages_of_the_interface_are_whole():
    folder = PACKAGE.parent / "docs" / "pages" / "api"
    pages = {path.stem: path.read_text().splitlines() for path in folder.glob("*.md")}
    here = [(stem, line[4:]) for stem, lines in pages.items() for line in lines if line.startswith("::: ")]
    listed = {name.removeprefix("pathwise_gp.") for _, name in here}
    assert len(here) == len(listed)
    names = {f"{module}.{name}" for module, name, _ in of_the_uses()}
    assert names
    assert names == {name for name in listed if "." in name}
    assert {name for name, _ in public()} <= listed
    # Each module has a page of its own.
    assert all(name.split(".")[1] == stem for stem, name in here if name.count(".") > 1)


def test_names_of_the_uses_are_documented():
    never_fails = {
        "Crossings",
        "Rollout",
        "Optimum",
        "Choice",
        "ParetoFront",
        "Batch",
        "Estimate",
        "VorobevExpectation",
        "PathDerivative",
        "CoverageFunction",
    }
    silent = []
    for module, name, value in of_the_uses():
        text = inspect.getdoc(value)
        assert text, name
        if name not in never_fails and not name.startswith("Abstract") and module != "numpyro_bridge":
            silent += [] if "**Raises:**" in text else [f"{module}.{name}"]
    assert not silent


def public():
    return [(name, value) for name, value in vars(pgp).items() if not name.startswith("_") and callable(value)]


@pytest.mark.parametrize(("name", "value"), public(), ids=[name for name, _ in public()])
def test_public_names_are_documented(name, value):
    text = inspect.getdoc(value)
    assert text
    never_fails = {"Spectrum", "Coordinates", "ZeroMean", "ConstantMean", "MonteCarlo", "Orthogonal"}
    made_by_others = {
        "SparsePosterior",
        "PathEnsemble",
        "PathwiseFunction",
        "OutputPaths",
        "ConditionedGP",
        "LeaveOneOut",
        "Prediction",
        "Fit",
        "Drawn",
        "Estimate",
        "Report",
        "Laplace",
        "PrecisionWarning",
        "ScaleWarning",
    }
    fails = name not in never_fails | made_by_others
    if fails and not name.startswith("Abstract"):
        assert "**Raises:**" in text
    if (
        inspect.isclass(value)
        and not name.startswith("Abstract")
        and name
        not in {"ZeroMean", "Cholesky", "Kronecker", "MonteCarlo", "Orthogonal", "PrecisionWarning", "ScaleWarning"}
    ):
        assert "**Fields:**" in text
