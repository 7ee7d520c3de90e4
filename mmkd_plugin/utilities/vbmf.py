"""The rank of a matrix beneath noise, by variational Bayesian matrix factorisation, Nakajima et al., JMLR 2013."""

from __future__ import annotations

import math

import numpy as np

_STEPS = 400


def vbmf_rank(matrix: np.ndarray) -> int:
    r"""The rank that empirical variational Bayes gives a matrix, by its analytic global solution.

    With :math:`\alpha = L / M` for a matrix of :math:`L \le M`, a singular value :math:`\gamma` is kept where

    .. math:: \gamma^2 > M \sigma^2 (1 + \tau) (1 + \alpha / \tau)

    where :math:`\tau` solves :math:`\Phi(\tau) + \Phi(\tau / \alpha) = 0` with
    :math:`\Phi(z) = \log(1 + z) / z - 1 / 2`, and the variance :math:`\sigma^2` of the noise is the one of least free
    energy.

    Args:
        matrix: Two dimensions, finite.

    Returns:
        How many singular values stand out of the noise; 0 where none does.

    Raises:
        ValueError: If it is no finite matrix.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError('a rank needs a matrix of finite numbers')
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    low, high = matrix.shape
    alpha = low / high
    # The squares of the singular values; those of rounding errors are as large as they can be.
    energies = np.linalg.eigvalsh(matrix @ matrix.T)[::-1] / high
    if energies[0] <= 0:
        return 0
    energies = np.maximum(energies, low * np.finfo(np.float64).eps * energies[0])
    tau = _least_tau(alpha)
    limit = (1 + tau) * (1 + alpha / tau)
    return int((energies > limit * _noise(energies, alpha, limit)).sum())


def _least_tau(alpha: float) -> float:
    """The zero of :math:`\\Phi(\\tau) + \\Phi(\\tau / \\alpha)`, which falls; it lies between those of its terms."""
    # Where log(1 + z) = z / 2.
    zero = 2.512862417252339
    below, above = zero * alpha, zero
    for _ in range(60):
        middle = (below + above) / 2
        value = math.log1p(middle) / middle + math.log1p(middle / alpha) * alpha / middle - 1
        below, above = (middle, above) if value > 0 else (below, middle)
    return (below + above) / 2


def _noise(energies: np.ndarray, alpha: float, limit: float) -> float:
    """The variance of the noise with the least free energy, between the bounds that the paper proves."""
    most = math.ceil(len(energies) / (1 + alpha)) - 1
    upper = float(energies.mean())
    lower = min(max(float(energies[most]) / limit, float(energies[most:].mean())), upper)
    # The energy has a kink wherever a singular value crosses the limit, so no slope is followed.
    for _ in range(3):
        grid = np.geomspace(lower, upper, _STEPS)
        best = int(np.argmin([_free_energy(energies / variance, alpha, limit) for variance in grid]))
        lower, upper = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _STEPS - 1)])
    return float(grid[best])


def _free_energy(scaled: np.ndarray, alpha: float, limit: float) -> float:
    """What of the free energy depends on the variance, for squared singular values in its multiples."""
    kept = scaled[scaled > limit]
    shifted = kept - (1 + alpha)
    tau = (shifted + np.sqrt(np.maximum(shifted**2 - 4 * alpha, 0))) / 2
    gain = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return float((scaled - np.log(scaled)).sum() + gain.sum())
