"""Plots show the numbers that they are given."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")

import matplotlib.pyplot as plt

from pathwise_gp import plots

RNG = np.random.default_rng(0)
LEVELS = RNG.normal(size=(5, 40))


def lines(X):
    """Two hundred straight lines, as draws × paths, in one input or in the first of two."""
    return jnp.asarray(LEVELS.reshape(5, 40, *[1] * (X.ndim - 1))) + X[None, None, ..., 0]


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def edges(collection):
    return collection.get_paths()[0].vertices


def test_paths_and_their_band(ax):
    x = np.linspace(0, 1, 11)
    assert plots.paths(lines, x, ax, level=0.8, n_shown=7, label="paths") is ax
    assert len(ax.lines) == 7
    starts = [line.get_ydata()[0] for line in ax.lines]
    assert set(np.round(starts, 9)) <= set(np.round(LEVELS.reshape(-1), 9))
    (band,) = ax.collections
    low, high = np.quantile(LEVELS, [0.1, 0.9])
    at_zero = edges(band)[edges(band)[:, 0] == 0][:, 1]
    np.testing.assert_allclose([at_zero.min(), at_zero.max()], [low, high])
    assert [text.get_text() for text in ax.legend().get_texts()] == ["paths"]


def test_a_fan_has_a_band_for_each_level(ax):
    plots.fan(lines, np.linspace(0, 1, 5), ax, levels=(0.5, 0.9), label="median")
    widths = [edges(band)[edges(band)[:, 0] == 0][:, 1] for band in ax.collections]
    found = [(w.min(), w.max()) for w in widths]
    np.testing.assert_allclose(found, np.quantile(LEVELS, [[0.05, 0.95], [0.25, 0.75]]))
    np.testing.assert_allclose(ax.lines[0].get_ydata()[0], np.median(LEVELS))


def test_level_set_density_counts_crossings(ax):
    positions = np.asarray([[0.1, 0.3], [0.15, np.nan], [0.8, np.nan], [0.12, 0.9]])
    plots.level_set_density(positions, ax, bins=[0.0, 0.5, 1.0])
    (stairs,) = ax.patches
    np.testing.assert_allclose(stairs.get_data().values, [4 / (4 * 0.5), 2 / (4 * 0.5)])


def test_excursion_is_the_share_above(ax):
    plots.excursion(lines, 0.5, [[0.0, 0.0], [1.0, 1.0]], ax, n_points=21)
    shares = np.asarray(ax.collections[0].get_array()).reshape(21, 21)
    x = np.linspace(0, 1, 21)
    np.testing.assert_allclose(shares[3], [(LEVELS + one > 0.5).mean() for one in x])
    half = np.concatenate([path.vertices for path in ax.collections[1].get_paths()])
    assert np.abs(half[:, 0] - (0.5 - np.median(LEVELS))).max() < 0.06


def test_optima_of_one_and_two_inputs(ax):
    points = RNG.normal(size=(50, 1))
    plots.optimum(points, ax, bins=5)
    area = sum(bar.get_height() * bar.get_width() for bar in ax.patches)
    np.testing.assert_allclose(area, 1)
    plots.optimum(RNG.normal(size=(50, 2)), ax)
    assert len(ax.lines[0].get_xdata()) == 50


def test_pit_shows_where_uniform_bars_lie(ax):
    plots.pit(np.linspace(0.0005, 0.9995, 1000), ax)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches[:10]], 1)
    # Two standard deviations of a binomial count of 1000 with p = 0.1, over 100.
    span = ax.patches[10].get_bbox()
    np.testing.assert_allclose([span.y0, span.y1], [1 - 2 * 0.0949, 1 + 2 * 0.0949], atol=0.02)


def test_reliability_is_drawn_about_the_diagonal():
    figure, _ = plt.subplots()
    ax = plots.reliability([0.5, 0.9], [0.4, 0.8], n=100, label="paths")  # the current one
    assert ax is plt.gca()
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.4, 0.8])
    middle = edges(ax.collections[0])
    np.testing.assert_allclose(np.ptp(middle[np.isclose(middle[:, 0], 0.5)][:, 1]), 4 * 0.05)
    plt.close(figure)


REFUSED = {
    "inputs": (lambda: plots.paths(lines, np.ones((3, 1))), r"`x` must be a vector of inputs; got shape \(3, 1\)"),
    "level": (lambda: plots.paths(lines, np.ones(3), level=90), "between 0 and 1; got 90"),
    "levels": (lambda: plots.fan(lines, np.ones(3), levels=()), "at least one level"),
    "number": (lambda: plots.paths(lines, np.ones(3), n_shown=0), "`n_shown` must be at least 1"),
    "positions": (lambda: plots.level_set_density(np.ones(3)), r"`positions` must have shape \(\*paths, crossings\)"),
    "no crossing": (lambda: plots.level_set_density(np.full((3, 1), np.nan)), "holds no crossing"),
    "bounds": (lambda: plots.excursion(lines, 0.0, [[1.0, 0.0], [0.0, 1.0]]), "`bounds` must hold a lower corner"),
    "points": (lambda: plots.optimum(np.ones((4, 3))), r"\(\*s, 1\) or \(\*s, 2\); got \(4, 3\)"),
    "pit": (lambda: plots.pit(np.asarray([0.5, 1.5])), "between 0 and 1"),
    "reliability": (lambda: plots.reliability([0.5], [0.5, 0.9]), "vectors of one length"),
}


@pytest.mark.usefixtures("no_hook")
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_uses_are_named(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call()
    plt.close("all")
