"""What a check says of data and teacher, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mmkd_plugin.study.evaluation import Metric
from mmkd_plugin.study.first_batches import BOXES, Truth
from mmkd_plugin.teachers.images import Renormalise, normalisation_text, normalises_knowingly

NEAR_ZERO = 0.01
"""A metric below, as a fraction of 1, is that of a model that finds nothing."""


def data_warnings(truth: Truth) -> list[str]:
    """What is wrong with the labels of the first batches.

    Args:
        truth: What they are labelled with.
    """
    if not truth.kind or truth.without < truth.images:
        return []
    if truth.kind == BOXES:
        return [
            f'None of the {truth.images} images that were read has a box; check that metainfo.classes of the data set '
            'are the names in its annotation file, and that ann_file belongs to the images.'
        ]
    return [
        f'None of the {truth.images} images that were read has a labelled pixel; check data_prefix, seg_map_suffix and '
        'reduce_zero_label of the data set.'
    ]


def other_classes(role: str, difference: str) -> str:
    """The sentence for a teacher of other classes.

    Args:
        role: Which teacher.
        difference: In what its classes differ.
    """
    return (
        f'The {role} was trained on other classes ({difference}): its features are used, its heads are not; take a '
        'teacher of the same classes if there is one.'
    )


def normalisation_notes(role: str, student: nn.Module | None, teacher: nn.Module | None) -> tuple[list[str], list[str]]:
    """What is to be said where student and teacher normalise their images otherwise.

    Args:
        role: Which teacher.
        student: The preprocessor of the student.
        teacher: That of the teacher.

    Returns:
        A warning where it is not known whether they differ, and a note where the batch is converted.
    """
    silent = [side for side, item in (('student', student), (role, teacher)) if not normalises_knowingly(item)]
    if silent:
        return [
            f'The {role} sees the images in the normalisation of the student, since the data_preprocessor of the '
            f'{" and of the ".join(silent)} does not say how it normalises; give it one with mean and std, such as '
            'DetDataPreprocessor or SegDataPreProcessor.'
        ], []
    assert student is not None and teacher is not None
    if Renormalise.between(student, teacher) is None:
        return [], []
    return [], [
        f'The {role} normalises its images otherwise ({normalisation_text(teacher)}) than the student '
        f'({normalisation_text(student)}); its batch is converted, so leave both as they were trained.'
    ]


def metric_warnings(metrics: Sequence[Metric]) -> list[str]:
    """What is wrong with the teachers, as far as the validation data tells.

    Args:
        metrics: Of the teachers, and of the student where it has weights.
    """
    student = next((metric for metric in metrics if metric.role == 'student'), None)
    found = []
    for metric in metrics:
        if metric is student:
            continue
        if metric.value < NEAR_ZERO:
            found.append(
                f'The {metric.role} has {metric.text} on the validation data, which is next to nothing: its classes, '
                'its weights or the data are the wrong ones; check teacher, teacher_ckpt and val_dataloader.'
            )
        elif student is not None and metric.value < student.value:
            found.append(
                f'The {metric.role} is worse than the student on the validation data ({metric.text} against '
                f'{student.text}), so there is little to learn from it; take a better teacher, or train it longer.'
            )
    return found
