"""What teachers and student find in an image of the batch, in pixels of the batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.probe.anatomy import task_of
from mmkd_plugin.utilities.clips import detector_of
from mmkd_plugin.utilities.rng import isolated_rng
from mmkd_plugin.views.compared import evaluating
from mmkd_plugin.views.drawing import SIDE, add_legend, bare

SCORE = 0.3
"""Boxes below it are not drawn."""
NOT_LABELLED = 255
_TINT = 0.55


@dataclasses.dataclass(frozen=True)
class Found:
    """Boxes, or a label map.

    Attributes:
        boxes: ``(B, 4)`` in pixels of the batch; None of a segmentor.
        labels: Their classes, ``(B,)``; or the map of a segmentor, ``(H, W)``.
        scores: Of the boxes; None of the truth.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = None

    @property
    def is_map(self) -> bool:
        """Whether it is a label map."""
        return self.labels.dim() == 2


def truth_of(sample: Any) -> Found:
    """The truth of a data sample; no boxes where it has neither boxes nor a map."""
    instances = getattr(sample, 'gt_instances', None)
    if instances is not None and 'bboxes' in instances:
        boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).cpu()
        return Found(boxes, instances.labels.cpu() if 'labels' in instances else torch.zeros(len(boxes)).long())
    label = getattr(sample, 'gt_sem_seg', None)
    return Found(torch.zeros(0, 4), torch.zeros(0).long() if label is None else label.data[0].cpu())


@torch.no_grad()
def found_by(algorithm: DistillAlgorithm, inputs: Tensor, samples: list[Any], index: int) -> dict[str, Found]:
    """What the teachers and the student find, the latter as it is evaluated.

    Args:
        algorithm: Of the run; weights, statistics and random numbers stay as they are.
        inputs: The preprocessed batch, ``(N, 3, H, W)``.
        samples: Its data samples.
        index: Of the image in the batch.

    Returns:
        By name; empty for a model that predicts neither boxes nor a map.
    """
    task = task_of(algorithm.student)
    image = inputs[index : index + 1]
    found = {}
    with isolated_rng(), evaluating(algorithm.student), torch.autocast(inputs.device.type, enabled=False):
        for name, teacher in algorithm.teachers.items():
            if task_of(teacher.model) == task:
                seen, told = teacher.batch(image, [samples[index]])
                prediction = _ask(teacher.model, task, seen, told or [])
                if prediction is not None:
                    own = dataclasses.replace(prediction, boxes=prediction.boxes / teacher.scale)
                    found['teacher' if len(algorithm.teachers) == 1 else f'teacher {name}'] = own
        student = _ask(algorithm.student, task, image, [samples[index]])
    return {} if student is None else {**found, 'student': student}


def found_figure(image: np.ndarray, models: Mapping[str, Found], classes: Sequence[str] = ()) -> Figure:
    """The image with what each model finds, in one column for each.

    Args:
        image: As the network sees it, ``(H, W, 3)`` RGB.
        models: By the name shown.
        classes: Their names; numbers stand for those that have none.

    Returns:
        The figure.
    """
    height, width = image.shape[:2]
    side = 1.4 * SIDE
    figure = Figure(figsize=(side * len(models), side * height / width + 0.9), layout='constrained')
    axes = figure.subplots(1, len(models), squeeze=False)[0]
    bare(axes)
    present: set[int] = set()
    for axis, (name, found) in zip(axes, models.items()):
        axis.set_title(name)
        axis.imshow(image)
        labels = found.labels.numpy()
        present.update(np.unique(labels).tolist())
        if found.is_map:
            colours = matplotlib.colormaps['tab20'](labels % 20)
            colours[..., 3] = np.where(labels == NOT_LABELLED, 0, _TINT)
            axis.imshow(colours, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation='nearest')
            continue
        scores = [''] * len(labels) if found.scores is None else [f' {score:.2f}' for score in found.scores.tolist()]
        for (x1, y1, x2, y2), label, score in zip(found.boxes.tolist(), labels.tolist(), scores):
            edge = matplotlib.colormaps['tab20'](label % 20)
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=edge, lw=1.5))
            if score:
                axis.text(x1, y1, score, fontsize=7, color='white', backgroundcolor=(*edge[:3], 0.7), clip_on=True)
    shown = sorted(present - {NOT_LABELLED})
    names = [classes[label] if label < len(classes) else f'class {label}' for label in shown]
    add_legend(figure, [(name, matplotlib.colormaps['tab20'](label % 20)) for name, label in zip(names, shown)])
    return figure


def _ask(model: nn.Module, task: str, image: Tensor, samples: list[Any]) -> Found | None:
    """The prediction of one model for one image, in pixels of that image."""
    asked: Any = detector_of(model)
    # A prediction is written into the sample, which the run still needs as it is.
    samples = [type(sample)(metainfo=sample.metainfo) for sample in samples]
    if task == 'segmentation' and hasattr(model, 'encode_decode'):
        logits = asked.encode_decode(image, [sample.metainfo for sample in samples])
        labels = logits[0].argmax(0) if logits.shape[1] > 1 else (logits[0, 0].sigmoid() > SCORE).long()
        return Found(torch.zeros(0, 4), labels.cpu())
    if task != 'detection':
        return None
    [sample] = asked.predict(image, samples, rescale=False)
    instances = sample.pred_instances
    keep = instances.scores >= SCORE
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    return Found(boxes[keep].float().cpu(), instances.labels[keep].cpu(), instances.scores[keep].float().cpu())
