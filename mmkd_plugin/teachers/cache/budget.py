"""The disk that records take: told before any of them is written, and refused where it does not fit."""

from __future__ import annotations

from typing import Callable

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.cache.store import Store, free_bytes

_MARGIN = 1.02
"""What a file takes beyond its bytes."""
_UNITS = ('B', 'kB', 'MB', 'GB', 'TB', 'PB')


class Budget:
    """What the records of a data set take, found from the first of them.

    Args:
        store: Where they lie.
        entries: How many records there will be: images times flips.
        area: Pixels of all of these images in their batches, to which an entry's bytes are in proportion.
        there: How many of them are there already.
        used: Bytes of those.
        most: Bytes that all of them may take, None for as many as the disk has.
        say: Told once what they take.
    """

    def __init__(
        self,
        store: Store,
        entries: int,
        area: int,
        there: int = 0,
        used: int = 0,
        most: float | None = None,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.store = store
        self.entries = entries
        self.area = area
        self.there = there
        self.used = self._before = used
        self.most = most
        self.say = say
        self._checked = there >= entries

    @property
    def whole(self) -> bool:
        """Whether every record was there when the run began."""
        return self.there >= self.entries

    def told(self) -> str:
        """How many records were there when the run began."""
        return f'{self.there:,} of {self.entries:,} there ({bytes_text(self._before)}) when the run began'

    def spend(self, size: int, area: int) -> None:
        """Make room for a record that is about to be written.

        Args:
            size: Its bytes.
            area: Pixels of its image in the batch.

        Raises:
            DistillError: If all of them together do not fit.
        """
        if not self._checked:
            self._checked = True
            self._require(round(size / area * self.area), size)
        self.used += size
        if self.most is not None and self.used > self.most:
            raise DistillError(
                f'The records in "{self.store.folder}" have come to {bytes_text(self.used)}, more than '
                f'distill.teacher_cache.max_disk={self.most / 1e9:g} GB; raise it, or train without teacher_cache.'
            )

    def _require(self, total: int, each: int) -> None:
        """Say what all records take, and refuse what does not fit."""
        free = free_bytes(self.store.folder)
        left = max(0, total - self.used)
        text = (
            f'{self.entries:,} teacher records of {bytes_text(each)} take {bytes_text(total)} in "{self.store.folder}"'
        )
        self.say(f'{text}: {bytes_text(left)} to be written, {bytes_text(free)} free.')
        if self.most is not None and total > self.most:
            raise DistillError(
                f'{text}, more than distill.teacher_cache.max_disk={self.most / 1e9:g} GB; raise it, distil fewer '
                'levels, train on smaller images, or set distill.teacher_cache=False.'
            )
        if left * _MARGIN > free:
            raise DistillError(
                f'{text}, but only {bytes_text(free)} are free there; set distill.teacher_cache.dir to a larger disk, '
                'distil fewer levels, train on smaller images, or set distill.teacher_cache=False.'
            )


def bytes_text(count: float) -> str:
    """A number of bytes in words, ``'2.7 TB'``, in powers of 1,000 as disks are sold."""
    for unit in _UNITS:
        if count < 999.5 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f'{count:.0f} {unit}' if unit == 'B' else f'{count:.3g} {unit}'
