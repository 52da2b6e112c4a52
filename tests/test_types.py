"""What a type checker believes of the library, as a user has it in an editor."""

import inspect
import re

import numpyro.distributions as dist
from checker import diagnostics
from test_architecture import of_the_uses

import pathwise_gp as pgp

# A line each. Whatever NumPyro draws may be an array or a number, and what stands in a list is looked at when it runs.
FINE = """
pgp.RBF(variance=1.0, lengthscale=0.3)
pgp.RBF(1, [0.3, 0.5])
pgp.RBF(np.float32(1.0), np.ones(2))
pgp.RBF(jnp.asarray(1.0), numpyro.sample("lengthscale", dist.LogNormal(0.0, 1.0)))
pgp.Matern(2.5, 1.0, 0.3)
pgp.Polynomial(1.0, 0.5, degree=3)
pgp.ActiveDims(pgp.RBF(1.0, 0.3), [0, 2])
pgp.GPPrior(pgp.RBF(1.0, 0.3), [[0.0], [1.0]], 2.0, 1e-6)
pgp.GPPrior(pgp.RBF(1.0, 0.3), X, mean=lambda X: X[:, 0], jitter=None).condition([0.0, 1.0], drawn)
pgp.GPPrior(pgp.RBF(1.0, 0.3), column).log_prob(column, 0.1, [True, False])
pgp.SparseGPPrior(pgp.RBF(1.0, 0.3), Z=X)
pgp.GPPrior(pgp.Coregionalised(pgp.RBF(1.0, 0.3), [[1.0]], [0.1]), pgp.AllOutputs(X, 1), pgp.OutputMeans([0.0]))
pgp.MeanFieldGuide(np.zeros(2), [1.0, 1.0])
pgp.acquisition.LogExpectedImprovement(jnp.sin, best=-0.9, maximise=True)
pgp.acquisition.ConstrainedExpectedImprovement(jnp.sin, [jnp.cos], 0.0, 0.1)
pgp.calculus.Quadrature([[0.0], [1.0]], [0.5, 0.5])
bridge.lift(pgp.RBF(1.0, 0.3), priors)
bridge.gp_factor("obs", pgp.GPPrior(pgp.RBF(1.0, 0.3), X), y, drawn)
pgp.fit(pgp.GPPrior(pgp.Matern(2.5, 1.0, 0.3), X), y, 0.1).prior.kernel.lengthscale.shape
pgp.GPPrior(pgp.Matern(2.5, 1.0, 0.3), X).condition(y, 0.1).prior.kernel.nu.is_integer()
bridge.lift(pgp.Matern(2.5, 1.0, 0.3), priors).lengthscale.shape
(pgp.fit(prior, y, 0.1).prior.kernel.lengthscale + 1.0).shape
"""
WRONG = """
pgp.RBF(1.0)
pgp.RBF("1.0", 0.3)
pgp.RBF(1.0, None)
pgp.Matern("rough", 1.0, 0.3)
pgp.Linear()
pgp.Categorical(1.0)
pgp.GPPrior(pgp.RBF(1.0, 0.3))
pgp.GPPrior(1.0, X)
pgp.GPPrior(pgp.RBF(1.0, 0.3), X, "linear")
pgp.SparseGPPrior(pgp.RBF(1.0, 0.3))
pgp.DeltaGuide()
pgp.DecoupledPathwiseSampler(pgp.SparseGPPrior(pgp.RBF(1.0, 0.3), X))
pgp.acquisition.ExpectedImprovement(jnp.sin)
pgp.acquisition.LogExpectedImprovement(jnp.sin, 0.0, temperature="low")
pgp.RadialBasis
pgp.plots.ribbon
pgp.fit(prior, y, 0.1).prior.kernel.period
"""
HEAD = """
from collections.abc import Callable
from typing import ParamSpec, TypeVar
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pathwise_gp as pgp
from pathwise_gp import numpyro_bridge as bridge

P = ParamSpec("P")
R = TypeVar("R")
def as_function(made: Callable[P, R]) -> Callable[P, R]: return made
X, y, column = np.ones((2, 1)), jnp.ones(2), pd.Series([0.0, 1.0])
drawn = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
priors = {"lengthscale": dist.LogNormal(0.0, 1.0)}
prior = pgp.GPPrior(kernel=pgp.Matern(nu=2.5, variance=1.0, lengthscale=0.3), X=X)
"""


def classes():
    """Every public class by the name that `HEAD` gives it."""
    found = {f"pgp.{name}": value for name, value in vars(pgp).items() if not name.startswith("_")}
    for module, name, value in of_the_uses():
        found[f"{'bridge' if module == 'numpyro_bridge' else f'pgp.{module}'}.{name}"] = value
    return {name: value for name, value in found.items() if inspect.isclass(value) and not is_others(value)}


def is_others(cls):
    """Whether it is not to be built, or is built by what another package says: NumPyro's metaclass takes anything."""
    return cls.__name__.startswith("Abstract") or issubclass(cls, (Warning, dist.Distribution))


def believed(message):
    """The arguments of a revealed signature, `(a: int, *, b: str = 'c') -> D`: of each its name, and whether it is given by
    name only and may be left out."""
    signature = re.search(r'is "\((.*)\) -> ', message, re.DOTALL).group(1)
    parts, depth = [""], 0
    for letter in signature:
        depth += (letter in "([{") - (letter in ")]}")
        parts = [*parts, ""] if letter == "," and depth == 0 else [*parts[:-1], parts[-1] + letter]
    parts = [part.strip() for part in parts if part.strip()]
    by_name = parts.index("*") if "*" in parts else len(parts)
    return [(p.split(":")[0].removeprefix("*"), i > by_name, " = " in p) for i, p in enumerate(parts) if p != "*"]


def at_run_time(cls):
    parameters = inspect.signature(cls).parameters.values()
    return [(one.name, one.kind is one.KEYWORD_ONLY, one.default is not one.empty) for one in parameters]


def test_a_checker_knows_what_the_classes_take():
    fine, wrong = ([line for line in lines.splitlines() if line] for lines in (FINE, WRONG))
    reveal = {f"reveal_type(as_function({name}))": name for name in classes()}
    lines = [*HEAD.splitlines(), *fine, *wrong, *reveal]
    said = diagnostics({"user.py": "\n".join(lines)})
    errors = {lines[one["range"]["start"]["line"]]: one["message"] for one in said if one["severity"] == "error"}
    assert {line: message for line, message in errors.items() if line not in wrong} == {}
    assert [line for line in wrong if line not in errors] == []
    notes = {lines[one["range"]["start"]["line"]]: one["message"] for one in said if one["severity"] == "information"}
    signatures = {name: believed(notes[line]) for line, name in reveal.items()}
    assert signatures == {name: at_run_time(cls) for name, cls in classes().items()}
