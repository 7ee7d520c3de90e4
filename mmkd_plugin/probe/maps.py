"""The heads of a segmentor: where their logits and the feature behind them are found."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.probe.watch import Watch, is_map


@dataclasses.dataclass(frozen=True)
class HeadTaps:
    """The taps of a segmentation head.

    Attributes:
        path: Path of the head.
        logits: The class map, before any resizing to the label's size.
        feature: What the classifier works on, before dropout; None where no module returned it.
        align_corners: Whether the head aligns corners when it resizes its logits.
        ignore_index: Label that the head's losses leave out.
    """

    path: str
    logits: Tap
    feature: Tap | None
    align_corners: bool
    ignore_index: int

    def seen_at(self, scale: float) -> HeadTaps:
        """The same head in pixels of an image that is smaller by ``scale``."""
        feature = None if self.feature is None else self.feature.seen_at(scale)
        return dataclasses.replace(self, logits=self.logits.seen_at(scale), feature=feature)


@dataclasses.dataclass(frozen=True)
class HeadPair:
    """The same head of student and teacher."""

    student: HeadTaps
    teacher: HeadTaps

    def require_same_classes(self) -> None:
        """Refuse class maps that cannot be compared class by class.

        Raises:
            DistillError: If the numbers of classes differ, or there is one channel for two classes.
        """
        of_student, of_teacher = self.student.logits.channels, self.teacher.logits.channels
        if of_student != of_teacher:
            raise DistillError(
                f"The student's {self.student.path} gives {of_student} classes and the teacher's {self.teacher.path} "
                f'{of_teacher}, so their logits cannot be compared; choose a teacher of the same num_classes.'
            )
        if of_student == 1:
            raise DistillError(
                f'The {self.student.path} gives one channel, whose softmax is the same everywhere; train student and '
                'teacher with out_channels=2.'
            )


def probe_decode_head(watch: Watch, model: Any, features: Any) -> HeadTaps | None:
    """The taps of a segmentor's decode head; of several that refine each other, those of the last with a class map."""
    head = getattr(model, 'decode_head', None)
    if not isinstance(head, nn.ModuleList):
        return probe_head(watch, 'decode_head', head, features) if isinstance(head, nn.Module) else None
    found: HeadTaps | None = None
    coarse: tuple[Any, ...] = ()
    for index, stage in enumerate(head):
        taps = probe_head(watch, f'decode_head.{index}', stage, features, *coarse)
        if taps is None:
            break
        found, coarse = taps, (watch.results[taps.path][-1],)
    return found


def probe_head(watch: Watch, path: str, head: nn.Module, *inputs: Any) -> HeadTaps | None:
    """Run a segmentation head and find what returned its logits and the module that made the classifier's input.

    Heads return their class map alone or first. None where the head returns no class map, or needs other inputs.
    """
    watch.direct.add(path)
    try:
        outputs = head(*inputs)
    except Exception:  # A head that needs the data samples, say, is not probed.
        watch.refused = True
        return None
    index = 0 if isinstance(outputs, (tuple, list)) and outputs else None
    logits: Any = outputs if index is None else outputs[index]
    if not is_map(logits) or logits.shape[1] != getattr(head, 'out_channels', logits.shape[1]):
        return None
    inside = [origin for origin in watch.origins_of(logits) if origin[0] != path]
    among = [origin for origin in watch.elements_of(logits) if origin[0] != path]
    feature: Any = None
    makers: list[tuple[str, int]] = []
    if inside:
        tap = watch.tap(inside[-1][0], logits, inside[-1][1])
        feature = watch.input_of(inside[0])
        makers = watch.origins_of(feature)
        while makers and all(isinstance(watch.modules[maker], _DropoutNd) for maker, _ in makers):
            behind = feature
            feature = watch.input_of(makers[0])
            # Dropout that does nothing returns what it took.
            makers = watch.origins_of(feature) if feature is not behind else []
        makers = [origin for origin in makers if not isinstance(watch.modules[origin[0]], _DropoutNd)]
    elif among:
        tap = watch.tap(among[-1][0], logits, *among[-1][1:])
    else:
        tap = watch.tap(path, logits, data_idx=index)
    ignored: Any = getattr(head, 'ignore_index', None)
    return HeadTaps(
        path=path,
        logits=tap,
        feature=watch.tap(makers[-1][0], feature, makers[-1][1]) if makers and is_map(feature) else None,
        align_corners=bool(getattr(head, 'align_corners', False)),
        ignore_index=255 if ignored is None else ignored,
    )
