"""Pseudo-random integers that are the same with every Python, NumPy and processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar('T')

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def mix(value: int) -> int:
    """Scramble 64 bits: the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


class Stream:
    """A SplitMix64 generator of integers.

    ``numpy.random.PCG64`` and ``RandomState`` would keep their numbers as well. This stream stays because the checksum
    of the images and every number measured on them depend on it.

    Args:
        key: Integers that name the stream; streams of different keys are independent.
    """

    def __init__(self, *key: int) -> None:
        self._state = 0
        for part in key:
            self._state = mix((self._state + _STEP + (part & _MASK)) & _MASK)

    def integer(self, low: int, high: int) -> int:
        """Draw one integer, ``low <= value < high``; the range is ``2**32`` at the most."""
        self._state = (self._state + _STEP) & _MASK
        return low + ((mix(self._state) >> 32) * (high - low) >> 32)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        """Draw an int64 array of a shape, ``low <= value < high``; the same numbers that ``integer`` would give."""
        count = int(np.prod(shape))
        bits = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP) + np.uint64(self._state)
        self._state = (self._state + count * _STEP) & _MASK
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_FIRST)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_SECOND)
        bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
        return ((bits * np.uint64(high - low)) >> np.uint64(32)).astype(np.int64).reshape(shape) + low

    def chance(self, percent: int) -> bool:
        """Return True in so many cases of a hundred."""
        return self.integer(0, 100) < percent

    def choice(self, options: Sequence[T]) -> T:
        """Pick one of the options."""
        return options[self.integer(0, len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in random order (Fisher and Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.integer(0, last + 1)
            result[last], result[other] = result[other], result[last]
        return result
