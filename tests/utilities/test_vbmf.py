"""The rank beneath noise: matrices of a known rank give it back, and noise alone has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.utilities.vbmf import _least_tau, vbmf_rank


def low_rank(rows: int, columns: int, rank: int, seed: int) -> np.ndarray:
    """A matrix whose singular values are all of the size ``sqrt(rows * columns)``, or 0."""
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.standard_normal((rows, rank)))[0]
    right = np.linalg.qr(random.standard_normal((columns, rank)))[0]
    return math.sqrt(rows * columns) * left @ right.T


def noise(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(20, 60),
    columns=st.integers(20, 150),
    rank=st.integers(1, 8),
    level=st.floats(1e-4, 0.1),
    seed=st.integers(0, 10**6),
)
def test_the_rank_beneath_noise_is_found(rows, columns, rank, level, seed):
    # The largest singular value of the noise is about sqrt(rows) + sqrt(columns), a tenth of which lies below the rest.
    assert vbmf_rank(low_rank(rows, columns, rank, seed) + level * noise(rows, columns, seed + 1)) == rank


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(30, 80), columns=st.integers(30, 200), seed=st.integers(0, 10**6))
def test_noise_alone_has_no_rank(rows, columns, seed):
    assert vbmf_rank(noise(rows, columns, seed)) == 0


@pytest.mark.parametrize('rank', [1, 3, 10])
def test_a_matrix_without_noise_has_its_own_rank(rank):
    assert vbmf_rank(low_rank(40, 90, rank, 0)) == rank


@pytest.mark.parametrize('factor', [1e-6, 1.0, 1e4])
def test_neither_scale_nor_orientation_matters(factor):
    matrix = low_rank(30, 100, 5, 0) + 0.3 * noise(30, 100, 1)
    assert vbmf_rank(factor * matrix) == vbmf_rank(factor * matrix.T) == vbmf_rank(matrix) == 5


def test_more_noise_never_shows_more():
    ranks = []
    for level in (0.01, 0.5, 2.0, 8.0):
        matrix = low_rank(40, 120, 1, 0) @ np.diag(np.ones(120)) + level * noise(40, 120, 1)
        ranks.append(vbmf_rank(matrix))
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] == 1
    assert ranks[-1] == 0


def test_a_matrix_of_zeros_has_rank_0():
    assert vbmf_rank(np.zeros((3, 5))) == 0


@pytest.mark.parametrize('matrix', [np.zeros(3), np.zeros((0, 2)), np.full((2, 2), np.nan)])
def test_anything_else_is_refused(matrix):
    with pytest.raises(ValueError, match='a rank needs a matrix'):
        vbmf_rank(matrix)


@pytest.mark.parametrize('alpha', [0.01, 0.3, 1.0])
def test_the_threshold_is_near_the_approximation_of_the_paper(alpha):
    # The paper gives 2.5129 times the root of alpha, exact for a square matrix alone.
    assert _least_tau(alpha) == pytest.approx(2.5129 * math.sqrt(alpha), rel=0.15)
