"""Random Gaussian blur of training images."""

from __future__ import annotations

import cv2
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from numpy import random

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomGaussianBlur(BaseTransform):
    """Blur ``results['img']``, ``(H, W, C)``, now and then.

    Args:
        kernel: Side of the kernel in pixels, odd; its deviation is OpenCV's for that size.
        prob: How often, from 0 to 1.

    Raises:
        DistillError: If the kernel has no middle.
    """

    def __init__(self, kernel: int = 5, prob: float = 0.5) -> None:
        if kernel < 1 or kernel % 2 == 0:
            raise DistillError(f'The kernel of RandomGaussianBlur is {kernel}; it must be odd, 5 for instance.')
        self.kernel = kernel
        self.prob = prob

    @cache_randomness
    def _blurs(self) -> bool:
        return bool(random.random() < self.prob)

    def transform(self, results: dict) -> dict:
        """Blur the image, or leave it."""
        if self._blurs():
            results['img'] = cv2.GaussianBlur(results['img'], (self.kernel, self.kernel), 0)
        return results
