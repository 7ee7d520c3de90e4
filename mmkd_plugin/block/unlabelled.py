"""Images without labels: what a user says of them, and the dataloader that mixes them in."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.settings import Count

_LOADS_LABELS = re.compile(r'Load\w*Annotations?$')
_OWN_PIPELINE = 'write the pipeline of the unlabelled images into distill.unlabelled.pipeline'


@dataclasses.dataclass(frozen=True)
class UnlabelledBlock:
    """Images without labels, from which the distillation terms alone learn.

    Attributes:
        images: Their folder, or a list of folders; images in folders inside count too.
        batch_size: How many of them join the labelled images of each batch, per GPU; as many as those by default.
        pipeline: Their transforms; those of the training data by default, without the loading of labels.
    """

    images: Union[str, Sequence[str]]
    batch_size: Optional[Count] = None
    pipeline: Optional[List[Any]] = None


def mix_unlabelled(dataloader: Any, unlabelled: UnlabelledBlock) -> Dict[str, Any]:
    """Let a dataloader add images without labels to each batch.

    Args:
        dataloader: Its config, with a labelled data set; it is left as it is.
        unlabelled: What is added.

    Returns:
        The config of the mixing dataloader; batches of labelled images are as before.

    Raises:
        DistillError: If the dataloader is no config, or no single pipeline is found in it.
    """
    if not isinstance(dataloader, dict) or not isinstance(dataloader.get('dataset'), dict):
        raise DistillError(
            'The unlabelled images of distill.unlabelled are mixed into the data set of train_dataloader, which must '
            'be a config, a dict with a dict under "dataset".'
        )
    mixed = copy.deepcopy(dataloader)
    pipeline = _pipeline_of(mixed['dataset']) if unlabelled.pipeline is None else unlabelled.pipeline
    images = unlabelled.images if isinstance(unlabelled.images, str) else list(unlabelled.images)
    mixed['dataset'] = dict(
        type='mmkd_plugin.MixedDataset',
        dataset=mixed['dataset'],
        unlabelled=dict(type='mmkd_plugin.UnlabelledImages', images=images, pipeline=_without_labels(pipeline)),
    )
    batches = dict(type='mmkd_plugin.MixedBatchSampler', unlabelled=unlabelled.batch_size or mixed['batch_size'])
    if mixed.get('batch_sampler') is not None:
        batches['batch_sampler'] = mixed['batch_sampler']
    # The loader of a batch sampler takes no drop_last of its own.
    if 'drop_last' in mixed:
        batches['drop_last'] = mixed.pop('drop_last')
    mixed['batch_sampler'] = batches
    return mixed


def _pipeline_of(dataset: Dict[str, Any]) -> List[Any]:
    """The pipeline that the data sets of the training data have in common."""
    found: List[Any] = []
    for item in _parts(dataset):
        if item.get('pipeline') not in found:
            found.append(item.get('pipeline'))
    if len(found) != 1 or not found[0]:
        reason = 'has no pipeline' if not any(found) else 'has several pipelines'
        raise DistillError(f'The data set of train_dataloader {reason}; {_OWN_PIPELINE}.')
    return found[0]


def _parts(dataset: Any) -> Iterator[Dict[str, Any]]:
    """The data sets inside wrappers and concatenations, and wrappers that have a pipeline of their own."""
    for item in dataset if isinstance(dataset, (list, tuple)) else [dataset]:
        if not isinstance(item, dict):
            continue
        inner = item.get('dataset', item.get('datasets'))
        if inner is None or item.get('pipeline'):
            yield item
        if inner is not None:
            yield from _parts(inner)


def _without_labels(steps: Any) -> Any:
    """A pipeline in which ignored pixels take the place of the labels that it loads, also in steps inside steps."""
    if isinstance(steps, (list, tuple)):
        return [_without_labels(step) for step in steps]
    if not isinstance(steps, dict):
        return steps
    kind = steps.get('type')
    if _LOADS_LABELS.search(kind if isinstance(kind, str) else getattr(kind, '__name__', '')):
        return dict(type='mmkd_plugin.NoLabels')
    return {key: _without_labels(value) if key == 'transforms' else value for key, value in steps.items()}
