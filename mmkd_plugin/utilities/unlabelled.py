"""Images without labels: their folders, and the mark that tells their data samples from those of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine import fileio

from mmkd_plugin.errors import DistillError

_MARK = 'unlabelled'


def mark_unlabelled(sample: Any) -> None:
    """Say in the meta information of a data sample that its image has no labels."""
    sample.set_metainfo({_MARK: True})


def is_unlabelled(sample: Any) -> bool:
    """Whether :func:`mark_unlabelled` has marked a data sample."""
    return bool(getattr(sample, 'metainfo', {}).get(_MARK, False))


def folders_of(images: str | Sequence[str]) -> list[str]:
    """One folder or several, as a list.

    Raises:
        DistillError: If there is none, or one of them is not there.
    """
    folders = [images] if isinstance(images, str) else list(images)
    if not folders:
        raise DistillError('distill.unlabelled.images names no folder; write the folder of the images there.')
    for folder in folders:
        if not fileio.isdir(folder):
            raise DistillError(
                f'The folder of unlabelled images "{folder}" is not there; put it there or set '
                'distill.unlabelled.images.'
            )
    return folders
