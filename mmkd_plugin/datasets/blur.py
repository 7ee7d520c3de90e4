"""Random Gaussian blur of training images."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from PIL import Image, ImageFilter

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomGaussianBlur(BaseTransform):
    """Blur ``results['img']``, ``(H, W, 3)`` of bytes, now and then.

    Args:
        sigma: Standard deviation in pixels; 1.1 is what OpenCV takes for a kernel of 5 pixels.
        prob: How often, from 0 to 1.

    Raises:
        DistillError: If the deviation is not above 0.
    """

    def __init__(self, sigma: float = 1.1, prob: float = 0.5) -> None:
        if not sigma > 0:
            raise DistillError(f'sigma of RandomGaussianBlur is {sigma}; it must be above 0, 1.1 for instance.')
        self.sigma = sigma
        self.prob = prob

    @cache_randomness
    def _blurs(self) -> bool:
        return bool(np.random.random() < self.prob)

    def transform(self, results: dict) -> dict:
        """Blur the image, or leave it."""
        if self._blurs():
            image = Image.fromarray(results['img'])
            results['img'] = np.array(image.filter(ImageFilter.GaussianBlur(self.sigma)))
        return results
