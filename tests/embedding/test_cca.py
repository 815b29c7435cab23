"""Canonical correlation against planted truth, invariance, and the textbook formula."""

import numpy as np
import pytest

from avssl.embedding.cca import cca
from avssl.errors import UsageError


def planted(pairs=400, shared=4, seed=0, noise=0.1, dims=(12, 9)):
    random = np.random.default_rng(seed)
    source = random.standard_normal((pairs, shared))
    mixing = [random.standard_normal((shared, d)) for d in dims]
    return [source @ m + noise * random.standard_normal((pairs, m.shape[1])) + 3.0 for m in mixing]


def recall_at_1(x, y):
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return ((x @ y.T).argmax(1) == np.arange(len(x))).mean()


def test_finds_the_planted_directions():
    x, y = planted()
    aligned = cca(x[:300], y[:300], ridge=1e-6)
    assert (aligned.correlations[:4] > 0.95).all() and aligned.correlations[4] < 0.4
    assert (np.diff(aligned.correlations) <= 1e-12).all()
    assert ((aligned.correlations >= 0) & (aligned.correlations <= 1 + 1e-9)).all()
    few = aligned.cut(4)
    assert recall_at_1(few.first(x[300:]), few.second(y[300:])) > 0.8


def test_equals_the_textbook_formula():
    x, y = planted(noise=1.0)
    ridge, n = 0.3, len(x)

    def root(c):
        values, vectors = np.linalg.eigh(c)
        return vectors @ np.diag(values**-0.5) @ vectors.T

    cx, cy = x - x.mean(0), y - y.mean(0)
    covariances = [c.T @ c / n for c in (cx, cy)]
    wx, wy = (root(c + ridge * np.trace(c) / len(c) * np.eye(len(c))) for c in covariances)
    u, s, vt = np.linalg.svd(wx @ (cx.T @ cy / n) @ wy)
    aligned = cca(x, y, ridge=ridge)
    np.testing.assert_allclose(aligned.correlations, s, atol=1e-10)
    for k in range(3):
        expected, found = cx @ wx @ u[:, k], aligned.first(x)[:, k]
        np.testing.assert_allclose(found * np.sign(found @ expected), expected, atol=1e-8)
        expected, found = cy @ wy @ vt[k], aligned.second(y)[:, k]
        np.testing.assert_allclose(found * np.sign(found @ expected), expected, atol=1e-8)


def test_does_not_depend_on_the_basis_without_a_ridge():
    x, y = planted(noise=0.5)
    change = np.random.default_rng(1).standard_normal((12, 12))
    a, b = cca(x, y, ridge=0.0), cca(x @ change, y * 1000 - 7, ridge=0.0)
    np.testing.assert_allclose(a.correlations, b.correlations, atol=1e-8)


def test_more_dimensions_than_pairs_need_a_ridge():
    x, y = planted(pairs=120, dims=(300, 200), noise=1.0)
    few = cca(x[:40], y[:40], ridge=1.0).cut(4)
    free = cca(x[:40], y[:40], ridge=0.0)
    assert free.correlations[0] == pytest.approx(1.0), "40 points in 300 dimensions fit anything"
    assert recall_at_1(few.first(x[40:]), few.second(y[40:])) > 2 * recall_at_1(
        free.cut(4).first(x[40:]), free.cut(4).second(y[40:])
    )


def test_constant_columns_and_too_few_pairs():
    x, y = planted()
    x[:, 0] = 5.0
    assert np.isfinite(cca(x, y, ridge=0.0).first(x)).all()
    with pytest.raises(UsageError, match="at least 2 pairs"):
        cca(x[:1], y[:1], ridge=0.0)


def test_a_pair_of_double_weight_is_a_pair_twice():
    x, y = planted(pairs=40, noise=1.0)
    twice = np.r_[np.arange(40), np.arange(10)]
    weights = np.where(np.arange(40) < 10, 2.0, 1.0) / 50
    found, expected = cca(x, y, ridge=0.1, weights=weights), cca(x[twice], y[twice], ridge=0.1)
    np.testing.assert_allclose(found.correlations, expected.correlations, atol=1e-9)
    np.testing.assert_allclose(np.abs(found.first(x)), np.abs(expected.first(x)), atol=1e-7)
