"""Places to take tensors from, as the probe finds them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place to take a feature from.

    Attributes:
        source: Path of the module whose output it is.
        channels: Channels of the feature.
        stride: Pixels of the image per cell.
        record_idx: Which call of the module in one forward pass.
        data_idx: Which element of the output, where it is a tuple.
        nonnegative: Whether no value was below zero, as behind a ReLU.
        direct: Whether the model may run the module past its hooks, by calling ``forward`` itself.
    """

    source: str
    channels: int
    stride: int
    record_idx: int = 0
    data_idx: int | None = None
    nonnegative: bool = False
    direct: bool = False

    def seen_at(self, scale: float) -> Tap:
        """The same tap in pixels of an image that is smaller by ``scale``; stride 0 where a cell is less than one."""
        return dataclasses.replace(self, stride=int(self.stride / scale))


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
