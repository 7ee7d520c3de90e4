"""What the shared checks let pass; what they refuse is tested with the functions that call them."""

from __future__ import annotations

import pytest
import torch

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.checks import require_choice, require_same_logits, require_same_shape


@pytest.mark.parametrize('require', [require_same_shape, require_same_logits])
def test_shapes(require):
    require(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4, dtype=torch.float64))
    for other in ((1, 2, 3, 5), (1, 2, 3), (2, 2, 3, 4)):
        with pytest.raises(DistillError):
            require(torch.zeros(1, 2, 3, 4), torch.zeros(other))


def test_choice():
    require_choice('option', 'b', ('a', 'b'))
    with pytest.raises(DistillError, match="option must be one of 'a', 'b', but it is 'c'."):
        require_choice('option', 'c', ('a', 'b'))
