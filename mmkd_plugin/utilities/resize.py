"""Maps of one size."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from mmkd_plugin.utilities.precision import full_precision


@full_precision
def resize_map(feature: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Resize a map bilinearly; one that has the size already is returned as it is.

    Args:
        feature: ``(N, C, H, W)``.
        size: Height and width in cells.
        align_corners: Whether the corner cells of both maps have the same centres.

    Returns:
        ``(N, C, *size)``.

    Example:
        >>> import torch
        >>> resize_map(torch.tensor([[[[0., 2.]]]]), (1, 3), align_corners=True)
        tensor([[[[0., 1., 2.]]]])
    """
    if tuple(feature.shape[2:]) == tuple(size):
        return feature
    return interpolate(feature, size, mode='bilinear', align_corners=align_corners)
