"""What is looked at before anything slow happens: the data set's files, and the classes of teacher and student."""

from __future__ import annotations

import contextlib
import logging
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.logging import print_log

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


def require_no_strategy(cfg: dict) -> None:
    """Refuse a strategy, which belongs to MMEngine's other runner.

    Args:
        cfg: The config of a run that distils.

    Raises:
        DistillError: If it has one.
    """
    strategy = cfg.get('strategy')
    if strategy is not None:
        kind = strategy.get('type') if isinstance(strategy, dict) else strategy
        raise DistillError(
            f'The config sets strategy ({getattr(kind, "__name__", kind)}), which DistillRunner does not read; set '
            "runner_type='mmkd_plugin.FlexibleDistillRunner', or strategy=None to spread a run over GPUs by "
            "model_wrapper_cfg, MMEngine's MMDistributedDataParallel by default."
        )


_OF_STRATEGIES = dict(
    model_wrapper_cfg='write strategy=dict(model_wrapper=...) instead',
    sync_bn='write strategy=dict(sync_bn=...) instead',
    find_unused_parameters='leave it out, since every parameter gets a gradient in every step',
)
"""What MMEngine's runner reads, and what is to be done where its runner with strategies does not."""


def require_no_wrapper(cfg: dict) -> None:
    """Refuse what MMEngine's runner with strategies would pass over.

    Args:
        cfg: The config of a run.

    Raises:
        DistillError: With the place where it is read.
    """
    for key, fix in _OF_STRATEGIES.items():
        if cfg.get(key):
            raise DistillError(f'The config sets {key}, which FlexibleDistillRunner does not read; {fix}.')


@contextlib.contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """Tell mistakes that the training itself runs into, of torch or MMEngine, with their fix."""
    try:
        yield
    except AssertionError as error:
        if 'AmpOptim' not in str(error) or 'gpu' not in str(error):
            raise
        raise DistillError(
            'AmpOptimWrapper trains in mixed precision, which needs a GPU, and none is visible; set '
            "optim_wrapper.type='OptimWrapper' to train in single precision."
        ) from error
    except ValueError as error:
        if 'Expected more than 1 value per channel' not in str(error):
            raise
        raise DistillError(
            'A batch norm layer gets a single value per channel, from which it cannot normalise, because the batch '
            'holds one image; set train_dataloader.batch_size to 2 or more, and train_dataloader.drop_last=True where '
            'the last batch of an epoch may be smaller.'
        ) from error


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


def class_names(meta: dict[str, Any] | None) -> tuple[str, ...] | None:
    """Class names of a data set's or checkpoint's meta information, None where it holds none."""
    meta = meta if isinstance(meta, dict) else {}
    names = meta.get('classes', meta.get('CLASSES'))
    return tuple(names) if isinstance(names, Sequence) and not isinstance(names, str) else None


def class_difference(student: dict[str, Any] | None, teacher: dict[str, Any] | None) -> str:
    """Where the classes of student and teacher differ first; empty where they agree, as far as both are known.

    Args:
        student: Meta information of the student's training data.
        teacher: ``meta['dataset_meta']`` of the teacher's checkpoint.
    """
    of_student, of_teacher = class_names(student), class_names(teacher)
    if of_student is None or of_teacher is None or of_student == of_teacher:
        return ''
    first = next((pair for pair in zip(of_student, of_teacher) if pair[0] != pair[1]), None)
    return f'"{first[0]}" against "{first[1]}"' if first else f'{len(of_student)} against {len(of_teacher)} classes'


def check_classes(student: dict[str, Any] | None, teacher: dict[str, Any] | None, by_class: bool) -> bool:
    """Say so where the teacher knows other classes.

    Args:
        student: As for :func:`class_difference`.
        teacher: As for :func:`class_difference`.
        by_class: Whether anything that depends on the classes is taken from the teacher (its heads, its logits).

    Returns:
        Whether the classes agree, as far as both are known.

    Raises:
        DistillError: If classes differ and something depends on them.
    """
    difference = class_difference(student, teacher)
    if not difference:
        return True
    if by_class:
        raise DistillError(
            f'The teacher was trained on other classes ({difference}), so its heads mean something else; use a teacher '
            'of the same classes, or a method on features alone with distill.inherit=False.'
        )
    print_log(
        f'The teacher was trained on other classes ({difference}); its features are used, its heads are not.',
        logger='current',
        level=logging.WARNING,
    )
    return False
