"""Every option of every search acts, of one input or a batch, of paths of many axes; or it is refused."""

import dataclasses
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import pathwise_gp as pgp
from pathwise_gp import acquisition as acq, design, level_sets, optimise, rollout, scores
from pathwise_gp.acquisition import optimism
from pathwise_gp.optimise import search as searching

KEY = jax.random.key(1)
BOX = np.asarray([[0.0, 0.0], [1.0, 1.0]])
SEEN = []  # the shapes that a function was traced with


def bowl(X, centre=0.2):
    return jnp.sum((X - centre) ** 2, axis=-1)


class Paths(eqx.Module):
    """Bowls of two axes, with a method `paired`."""

    centres: jax.Array

    def __call__(self, X):
        SEEN.append(X.shape)
        return jnp.stack([jnp.stack([bowl(X, c) for c in row]) for row in self.centres])

    def paired(self, X):
        return jnp.sum((X - self.centres.reshape(*self.centres.shape, *(1,) * (X.ndim - 2))) ** 2, axis=-1)


def several(X):
    SEEN.append(X.shape)
    return jnp.stack([bowl(X), bowl(X, 0.3), bowl(X, 0.1)])


class Near(acq.AbstractAcquisition):
    paths: object = staticmethod(bowl)

    def of(self, X):
        SEEN.append((X.shape[0], X.shape[1] * X.shape[2]))
        return -jnp.sum(bowl(X), axis=1)


def one_shot(q):
    def mean(X):
        SEEN.append(X.shape)  # of the maxima
        return bowl(X)

    kernel = lambda X, Z: jnp.exp(-0.5 * jnp.sum(((X[:, None] - Z[None]) / 0.3) ** 2, axis=2))
    return acq.OneShotKnowledgeGradient(mean, kernel, KEY, 0.1, 0.0, q=q, n_fantasies=2)


# Of each use and shape the search, and the number of searches at once for each start.
ROWS = {
    "minimise, paths": (lambda **o: optimise.minimise(several, BOX, KEY, **o), 3),
    "minimise, two axes and paired": (
        lambda **o: optimise.minimise(Paths(jnp.asarray([[0.1], [0.2]])), BOX, KEY, **o),
        2,
    ),
    "acquisition": (lambda **o: Near().optimise(BOX, KEY, **o), 1),
    "acquisition, q = 3": (lambda **o: Near().optimise(BOX, KEY, 3, **o), 1),
    "one-shot, q = 2": (lambda **o: one_shot(2).optimise(BOX, KEY, **o), 1),
}
OPTIONS = {
    "n_screen",
    "n_restarts",
    "max_steps",
    "tolerance",
    "constraints",
    "candidates",
    "discrete",
    "progress",
}


@pytest.mark.parametrize("row", ROWS)
def test_options_that_restrict_what_is_found(row):
    search, _ = ROWS[row]
    options = {"discrete": {1: [0.0, 0.25, 1.0]}, "constraints": lambda X: 0.5 - X[..., 0]}
    if "minimise" not in row:
        options["joint_constraints"] = lambda X: 0.9 - jnp.max(X[..., 0], axis=-1)
    SEEN.clear()
    candidates = np.full((4, 2), 0.7)
    found = search(n_screen=16, n_restarts=2, candidates=candidates, **options)
    assert np.all(found.feasible)
    points = np.asarray(found.points)
    assert (points[..., 0] >= 0.5 - 1e-5).all()
    assert np.isin(points[..., 1], [0.0, 0.25, 1.0]).all()
    if "minimise" not in row:
        assert points[..., 0].max() >= 0.9 - 1e-5
    # The candidates are screened beside the design.
    assert 20 in {shape[0] for shape in SEEN}


@pytest.mark.parametrize("row", ROWS)
def test_options_of_the_effort(row, capsys):
    search, s = ROWS[row]
    effort = {"n_screen": 11, "n_restarts": 3, "max_steps": 2, "progress": True}
    SEEN.clear()
    short = search(tolerance=1e-12, **effort)
    jax.effects_barrier()
    said = capsys.readouterr().err
    assert f"of {3 * s} searches" in said  # the restarts
    assert "/2 " in said  # the steps
    assert 11 in {shape[0] for shape in SEEN}  # the screen
    assert not np.any(short.converged)
    assert np.all(search(tolerance=1e6, **effort).converged)
    with pytest.raises(ValueError, match="`n_restarts` must be at most `n_screen`, 3; got 4"):
        search(n_screen=3, n_restarts=4)


def test_every_option_is_in_the_table(monkeypatch):
    keywords = lambda f: {name for name, p in inspect.signature(f).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords(optimise.minimise) == OPTIONS
    assert keywords(searching.search) == OPTIONS
    assert keywords(acq.AbstractAcquisition.optimise) <= {"joint_constraints"} | OPTIONS
    assert keywords(acq.OneShotKnowledgeGradient.optimise) <= {"joint_constraints"} | OPTIONS
    # What hands its options on hands on all of them.
    given = dict.fromkeys(OPTIONS, object())
    nothing, last = optimise.Optimum(*(jnp.zeros(1),) * 4), []

    def handed(*arguments, **options):
        last.append(options)
        return nothing

    for module, name, call in (
        (optimism, "_minimise", lambda: acq.thompson_sample(bowl, BOX, KEY, **given)),
        (optimism, "_maximise", lambda: acq.thompson_sample(bowl, BOX, KEY, maximise=True, **given)),
        (searching, "_of_one", lambda: optimise.maximise(bowl, BOX, KEY, **given)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, handed)
            call()
            assert last.pop() == given


@pytest.mark.parametrize("name", ["choices", "q", "joint_constraint", "n_starts"])
def test_options_that_there_are_not_are_refused(name):
    for search in (optimise.minimise, optimise.maximise, acq.thompson_sample, one_shot(1).optimise, Near().optimise):
        if name != "q" or search != Near().optimise:
            with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
                search(*(() if hasattr(search, "__self__") else (bowl,)), BOX, KEY, **{name: 2})
    for search in (optimise.minimise, optimise.maximise, acq.thompson_sample):
        with pytest.raises(TypeError, match="unexpected keyword argument 'joint_constraints'"):
            search(bowl, BOX, KEY, joint_constraints=bowl)
    for search in (optimise.minimise_over, optimise.maximise_over):
        with pytest.raises(TypeError, match="unexpected keyword argument 'candidates'"):
            search(bowl, BOX, candidates=BOX)


X = np.linspace(-1, 1, 5)[:, None]
PATHS = [jnp.asarray(np.random.default_rng(i).normal(size=(6, 3))) for i in range(2)]
WAVES = [
    lambda X, w=w: jnp.tensordot(
        w, jnp.stack([jnp.ones(X.shape[:-1]), jnp.sin(2 * X[..., 0]), jnp.cos(3 * X[..., 0])]), 1
    )
    for w in PATHS
]
# Of each field another value, at which an acquisition is another.
OTHER = {
    "constraints": (WAVES[0],),
    "best": jnp.asarray(-0.2),
    "temperature": jnp.asarray(0.7),
    "bandwidth": jnp.asarray(0.9),
    "threshold": jnp.asarray(0.6),
    "beta": jnp.asarray(5.0),
    "level": jnp.asarray(0.9),
    "candidates": jnp.asarray(X[:2]),
    "key": jax.random.key(9),
    "noise_var": jnp.asarray(2.0),
    "reference": jnp.asarray([0.5, 0.9]),
    "front": jnp.asarray([[-0.5, -0.2]]),
    "maximise": True,
    "log": True,
}
ACQUISITIONS = {
    acq.ExpectedImprovement: (WAVES[0], 0.1),
    acq.LogExpectedImprovement: (WAVES[0], 0.1),
    acq.ConstrainedExpectedImprovement: (WAVES[0], WAVES[1], 0.1),
    acq.LogConstrainedExpectedImprovement: (WAVES[0], WAVES[1], 0.1),
    acq.ProbabilityOfImprovement: (WAVES[0], 0.1),
    acq.Exceedance: (WAVES[0], 0.1),
    acq.ProbabilityOfFeasibility: (WAVES,),
    acq.UpperConfidenceBound: (WAVES[0], 1.0),
    acq.Quantile: (WAVES[0], 0.3),
    acq.KnowledgeGradient: (WAVES[0], X, KEY, 0.1),
    acq.HypervolumeImprovement: (WAVES, np.ones(2), np.zeros((1, 2))),
    acq.LogHypervolumeImprovement: (WAVES, np.ones(2), np.zeros((1, 2))),
}


@eqx.filter_jit
def together_and_alone(acquisition, X):
    return acquisition.joint(X), acquisition.joint(X[:, :1])


@pytest.mark.parametrize("made", ACQUISITIONS, ids=lambda made: made.__name__)
def test_every_field_of_an_acquisition_acts(made):
    first = made(*ACQUISITIONS[made])
    # Widths that are given, so that other ones are no other program.
    widths = {
        "bandwidth": jnp.asarray(0.2),
        "temperature": jnp.asarray([0.1, 0.1] if "Hyper" in made.__name__ else 0.1),
    }
    given = {field.name: widths[field.name] for field in dataclasses.fields(first) if field.name in widths}
    first = dataclasses.replace(first, **given)
    batch = np.asarray([[[-0.7], [0.4]], [[0.1], [0.9]]])
    values = together_and_alone(first, batch)
    for field in dataclasses.fields(first):
        if field.name == "paths":
            continue
        value = OTHER[field.name]
        if field.name == "temperature" and "Hyper" in made.__name__:
            value = jnp.asarray([0.7, 0.7])
        other = dataclasses.replace(first, **{field.name: value})
        for one, another in zip(values, together_and_alone(other, batch), strict=True):
            assert (np.abs(np.asarray(one) - np.asarray(another)) > 1e-6).any(), field.name


def test_there_is_a_row_for_every_acquisition():
    there = {
        value for value in vars(acq).values() if isinstance(value, type) and issubclass(value, acq.AbstractAcquisition)
    }
    assert there - {acq.AbstractAcquisition} == set(ACQUISITIONS)


DRAWS = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)))


def waves(*axes):
    """Smooth paths of one input, of axes `*s`."""
    w = DRAWS.reshape(*axes, 3)
    basis = lambda X: jnp.stack([jnp.ones(X.shape[:-1]), jnp.sin(5 * X[..., 0]), jnp.cos(3 * X[..., 0])])
    return jax.jit(lambda X: jnp.tensordot(w, basis(X), 1))


def rolled(axes, **options):
    moved = rollout.rollout([waves(*axes)], lambda x: 0 * x[:0], jnp.asarray([0.3]), 2, **options)
    return moved.states, moved.rewards


def samples(axes):
    return np.random.default_rng(4).normal(size=(*axes, 5, 2))


Y, UNIT, AT = np.zeros((5, 2)), np.asarray([0.0, 1.0]), np.asarray([[0.2], [0.5]])
LIKELIHOOD = lambda f: dist.Normal(f, 0.5)
KERNEL = pgp.RBF(1.0, 1.0)
OPTIMA = optimise.Optimum(AT, jnp.asarray([0.3, 0.1]), *(jnp.ones(2, bool),) * 2)
# Of other uses each option, as a function of the axes of the paths and of the option: two values of it.
USES = {
    "correct_bias of a gain": (
        lambda s, v: design.information_gain(waves(*s), AT, 0.1, correct_bias=v).value,
        (True, False),
    ),
    "correct_bias of an entropy": (
        lambda s, v: design.joint_entropy(waves(*s), AT, 0.1, correct_bias=v),
        (True, False),
    ),
    "contrastive": (
        lambda s, v: design.nested_information_gain(waves(*s), AT, LIKELIHOOD, KEY, contrastive=v).value,
        (True, False),
    ),
    "n_nodes": (lambda s, v: design.gaussian_bald(samples(s), np.exp(samples(s)), n_nodes=v), (4, 8)),
    "maximise": (
        lambda s, v: design.joint_entropy_search(lambda X: 0 * X[..., 0], KERNEL, AT, OPTIMA, 0.1, maximise=v),
        (True, False),
    ),
    "n_scan": (lambda s, v: level_sets.crossings(waves(*s), 0.0, UNIT, v).count, (2, 64)),
    "max_crossings": (
        lambda s, v: np.asarray(level_sets.crossings(waves(*s), 0.0, UNIT, 16, v).locations.shape),
        (1, 2),
    ),
    "direction": (lambda s, v: level_sets.crossings(waves(*s), 0.0, UNIT, 16, 2, direction=v).count, ("up", "down")),
    "direction of the first": (
        lambda s, v: level_sets.first_crossing(waves(*s), 0.0, UNIT, 16, direction=v),
        ("up", "down"),
    ),
    "increments": (lambda s, v: rolled(s, increments=v)[0], (True, False)),
    "reward": (lambda s, v: rolled(s, reward=lambda x, a, y: v * x[0])[1], (1.0, 2.0)),
    "discount": (lambda s, v: rollout.returns(samples(s), v), (0.5, 1.0)),
    "fair of crps": (lambda s, v: scores.crps(samples(s), Y, fair=v), (True, False)),
    "fair of the energy": (lambda s, v: scores.energy_score(samples(s), Y, fair=v), (True, False)),
    "p": (lambda s, v: scores.variogram_score(samples(s), Y, v), (0.5, 1.0)),
    "weights of pairs": (lambda s, v: scores.variogram_score(samples(s), Y, weights=v), (None, np.full((2, 2), 3.0))),
    "key": (lambda s, v: scores.pit(samples(s), Y, v), (None, KEY)),
}


@pytest.mark.parametrize("name", USES)
def test_options_of_other_uses_act(name):
    use, values = USES[name]
    first, second = (np.nan_to_num(use((2, 2), value), nan=-7.0) for value in values)
    assert first.shape == second.shape
    assert (np.abs(first - second) > 1e-9).any()
