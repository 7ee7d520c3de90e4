"""Look for the data set before anything slow happens."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator
from typing import Any

from mmkd_plugin.errors import DistillError

MINI_HINT = (
    'put it there or set the path; "python tools/make_coco_mini.py" makes a small data set in seconds, which '
    'configs/coco_mini uses'
)


def require_annotations(dataloader: dict, purpose: str) -> None:
    """Check that a local data set's annotation file or image folder exists.

    Args:
        dataloader: Config of the dataloader; wrapped and concatenated data sets are looked into.
        purpose: ``'training'`` or ``'test'``, for the message.

    Raises:
        DistillError: Naming the file that is expected.
    """
    for dataset in _plain(dataloader.get('dataset')):
        _require_files(dataset, purpose)


def _plain(dataset: Any) -> Iterator[dict]:
    """The data sets inside wrappers and concatenations."""
    if isinstance(dataset, (list, tuple)):
        for item in dataset:
            yield from _plain(item)
    elif isinstance(dataset, dict):
        inner = dataset.get('dataset', dataset.get('datasets'))
        if inner is not None and 'ann_file' not in dataset:
            yield from _plain(inner)
        else:
            yield dataset


def _require_files(dataset: dict, purpose: str) -> None:
    """Check one data set."""
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or {}
    folder = prefix.get('img') or prefix.get('img_path') if isinstance(prefix, dict) else None
    for what, name in (('annotation file', dataset.get('ann_file')), ('image folder', folder)):
        if not isinstance(name, str) or not name:
            continue
        path = osp.join(root, name)
        if '://' not in path and not osp.exists(path):
            raise DistillError(
                f'The {what} of the {purpose} data is expected at "{path}" but is not there: {MINI_HINT}.'
            )
