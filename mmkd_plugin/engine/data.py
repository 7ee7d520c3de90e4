"""Look for the data set before anything slow happens."""

from __future__ import annotations

import os.path as osp

from mmkd_plugin.errors import DistillError

MINI_HINT = (
    'put it there or set the path; "python tools/make_coco_mini.py" makes a small data set in seconds, which '
    'configs/coco_mini uses'
)


def require_annotations(dataloader: dict) -> None:
    """Check that a local data set's annotation file or image folder exists.

    Args:
        dataloader: Config of the dataloader; wrapped data sets are unwrapped.

    Raises:
        DistillError: Naming the file that is expected.
    """
    dataset = dataloader.get('dataset') or {}
    while isinstance(dataset, dict) and 'dataset' in dataset and 'ann_file' not in dataset:
        dataset = dataset['dataset']
    if not isinstance(dataset, dict) or (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
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
                f'The {what} of the training data is expected at "{path}" but is not there: {MINI_HINT}.'
            )
