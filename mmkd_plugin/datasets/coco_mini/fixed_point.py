"""Sine and rotation in whole numbers, so that pictures do not depend on a maths library."""

from __future__ import annotations

import math
from typing import Any

TURN = 256
"""Angles are counted in 1/256 of a turn."""

_BITS = 14
# None of these values comes near a half, so the last digit of math.sin cannot change what they round to.
_SINE = tuple(round(math.sin(2 * math.pi * k / TURN) * (1 << _BITS)) for k in range(TURN))


def rotate(x: Any, y: Any, angle: int) -> tuple[Any, Any]:
    """Turn integer coordinates, int or int64 arrays, by ``angle / 256`` of a turn; rounds down."""
    sine, cosine = _SINE[angle % TURN], _SINE[(angle + TURN // 4) % TURN]
    return (x * cosine + y * sine) >> _BITS, (y * cosine - x * sine) >> _BITS
