"""The factors of a layer's weight: how many, and which."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.models.factored import FactoredLinear, Ranks, TuckerConv2d
from mmkd_plugin.utilities.vbmf import vbmf_rank

_FEW = 4
"""A side of as few channels, the colours of an image, is not factored; Kim et al. leave it, too."""


def automatic_ranks(layer: nn.Module, rule: str | float) -> Ranks | None:
    """The ranks of a layer by a rule.

    Args:
        layer: A convolution or a fully-connected layer.
        rule: ``'vbmf'`` for variational Bayes on the unfolded weight, or the share of the channels that remains.

    Returns:
        As a config gives them; None where the product would not be smaller than the layer.
    """
    weight: Any = layer.weight
    if isinstance(layer, nn.Linear):
        rank = _rank(weight, rule)
        smaller = rank * (layer.in_features + layer.out_features) < weight.numel()
        return rank if smaller else None
    outputs, inputs = weight.shape[:2]
    inner = _side(inputs, lambda: _rank(weight.transpose(0, 1).flatten(1), rule))
    outer = _side(outputs, lambda: _rank(weight.flatten(1), rule))
    pixels = weight[0, 0].numel()
    size = (inner or inputs) * (outer or outputs) * pixels + inputs * (inner or 0) + outputs * (outer or 0)
    return (inner, outer) if size < weight.numel() else None


def fill(product: nn.Module, layer: nn.Module) -> float:
    """Fill a factored layer with the factors of the layer that it stands for.

    Args:
        product: A :class:`TuckerConv2d` or a :class:`FactoredLinear`.
        layer: The trained layer.

    Returns:
        The distance of the product from the weight, in the norm of the weight.

    Raises:
        DistillError: If a convolution is to be factored and tensorly is not installed.
    """
    weight, bias = _weight(layer), getattr(layer, 'bias', None)
    if isinstance(product, FactoredLinear):
        first, last = truncated(weight, product.first.out_features)
        product.fill(first, last, bias)
        return _distance(weight, last @ first)
    assert isinstance(product, TuckerConv2d)
    inner, outer = product.ranks
    core, factors = partial_tucker(weight, {0: outer, 1: inner})
    product.fill(core, factors.get(1), factors.get(0), bias)
    whole = core
    if outer is not None:
        whole = torch.einsum('or,rihw->oihw', factors[0], whole)
    if inner is not None:
        whole = torch.einsum('ir,orhw->oihw', factors[1], whole)
    return _distance(weight, whole)


def truncated(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors of a matrix that keep its largest singular values, equally large, so that one rate suits both.

    Args:
        weight: ``(out, in)``, in double precision.
        rank: How many values are kept.

    Returns:
        ``(R, in)`` and ``(out, R)``.
    """
    if weight.shape[0] > weight.shape[1]:
        last, first = truncated(weight.t(), rank)
        return first.t(), last.t()
    # Several times as fast as a singular value decomposition, for the thousands of features of a VGG.
    vectors = torch.linalg.eigh(weight @ weight.t()).eigenvectors[:, -rank:].flip(1)
    first = vectors.t() @ weight
    root = first.norm(dim=1).sqrt().clamp_min(torch.finfo(weight.dtype).tiny)
    return first / root[:, None], vectors * root


def partial_tucker(weight: Tensor, ranks: dict[int, int | None]) -> tuple[Tensor, dict[int, Tensor]]:
    """Factor some sides of a tensor, by tensorly's higher-order orthogonal iteration.

    Args:
        weight: Any shape.
        ranks: By the side; sides of rank None stay.

    Returns:
        The core, and for each factored side a matrix ``(size, rank)`` with orthonormal columns.

    Raises:
        DistillError: If tensorly is not installed.
    """
    require_tensorly()
    import tensorly
    from tensorly.decomposition import partial_tucker as factorise

    sides = {side: rank for side, rank in ranks.items() if rank is not None}
    if not bool(weight.any()):
        # The iteration divides by the norm.
        core = weight.new_zeros([sides.get(side, size) for side, size in enumerate(weight.shape)])
        return core, {side: weight.new_zeros(weight.shape[side], rank) for side, rank in sides.items()}
    with tensorly.backend_context('numpy'):
        found = factorise(
            weight.numpy(), rank=list(sides.values()), modes=list(sides), init='svd', tol=1e-5, random_state=0
        )
    # Versions before 0.8 return no errors beside the factors.
    core, factors = found[0] if isinstance(found[0], tuple) else found
    return torch.from_numpy(np.array(core)), {
        side: torch.from_numpy(np.array(factor)) for side, factor in zip(sides, factors)
    }


def require_tensorly() -> None:
    """Refuse to go on without tensorly.

    Raises:
        DistillError: Naming what to install.
    """
    try:
        import tensorly.decomposition  # noqa: F401
    except ImportError as error:
        raise DistillError(
            f'Convolutions are factored by the package tensorly, which cannot be imported ({error}); run "pip install '
            'tensorly".'
        ) from error


def _side(channels: int, rank: Any) -> int | None:
    """The rank of one side, None where it stays."""
    if channels <= _FEW:
        return None
    found = rank()
    return found if found < channels else None


def _rank(matrix: Tensor, rule: str | float) -> int:
    if rule == 'vbmf':
        return max(vbmf_rank(matrix.detach().double().numpy()), 1)
    return max(math.floor(float(rule) * min(matrix.shape) + 0.5), 1)


def _weight(layer: nn.Module) -> Tensor:
    weight: Any = layer.weight
    return weight.detach().double()


def _distance(weight: Tensor, product: Tensor) -> float:
    return float((weight - product).norm() / weight.norm().clamp_min(torch.finfo(weight.dtype).tiny))
