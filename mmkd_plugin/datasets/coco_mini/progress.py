"""Progress in a few lines, on terminals and in log files alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar('T')


def with_progress(items: Sequence[T], name: str, report: Callable[[str], None]) -> Iterator[T]:
    """Pass items on and report each finished quarter.

    Args:
        items: What is worked through.
        name: What stands before the count.
        report: Takes the lines.

    Yields:
        The items.
    """
    total = len(items)
    for number, item in enumerate(items, start=1):
        yield item
        if number * 4 // total > (number - 1) * 4 // total:
            report(f'{name}: {number} of {total} images')
