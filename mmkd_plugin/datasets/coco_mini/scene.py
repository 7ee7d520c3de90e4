"""Compose one picture of COCO-mini: background, shapes, distractors, a crowd, light and noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmkd_plugin.datasets.coco_mini.fixed_point import TURN
from mmkd_plugin.datasets.coco_mini.prng import Stream
from mmkd_plugin.datasets.coco_mini.shapes import CLASSES, DISTRACTORS, SUBPIXELS, Figure, Pose, coverage
from mmkd_plugin.datasets.coco_mini.textures import BACKGROUNDS, FILLS, FULL, blend, soften, value_noise

IGNORE = 255
"""Pixel of a semantic map that is neither right nor wrong."""

# Diameters in pixels of a picture 128 pixels wide, about evenly spread on a logarithmic scale.
_DIAMETERS = (18, 21, 24, 28, 33, 38, 44, 50, 57, 64)
# Shapes are tilted by up to this much either way, in 1/256 turn.
_TILT = 20
_EMPTY_PERCENT = 5
_CROWD_PERCENT = 10
_FULL_COVER = 9
_TRIES = 8


@dataclass
class Instance:
    """One annotated object, or one crowd.

    Attributes:
        label: Index of the class.
        mask: The pixels where it is seen, ``(H, W)`` bool; what other shapes hide is left out.
        crowd: Whether it is a group whose members are not annotated one by one.
    """

    label: int
    mask: np.ndarray
    crowd: bool


@dataclass
class Scene:
    """One picture with its annotation.

    Attributes:
        image: ``(H, W, 3)`` uint8, red, green, blue.
        instances: In the order in which they were drawn.
        semantic: ``(H, W)`` uint8: 0 background and distractors, ``label + 1`` objects, 255 crowds.
    """

    image: np.ndarray
    instances: list[Instance]
    semantic: np.ndarray


@dataclass
class _Entry:
    """An object, a crowd, or (label None) a distractor, and how many pixels were drawn for it."""

    label: int | None
    crowd: bool
    drawn: int = 0


@dataclass
class _Canvas:
    """The picture being drawn, and the number of the entry that is on top at each pixel (-1: none)."""

    picture: np.ndarray
    owner: np.ndarray
    entries: list[_Entry] = field(default_factory=list)

    def add(self, label: int | None, crowd: bool = False) -> int:
        """Open an entry and return its number."""
        self.entries.append(_Entry(label, crowd))
        return len(self.entries) - 1

    def hides_too_much(self, rows: slice, columns: slice, mask: np.ndarray, entry: int) -> bool:
        """Whether drawing here would leave less than half of an earlier shape in sight."""
        for other in np.unique(self.owner[rows, columns][mask]).tolist():
            if other in (-1, entry):
                continue
            seen = self.owner == other
            left = seen.sum() - (seen[rows, columns] & mask).sum()
            if 2 * left < self.entries[other].drawn:
                return True
        return False

    def draw(self, stream: Stream, figure: Figure, pose: Pose, entry: int, inside: int = 60) -> bool:
        """Draw a shape, unless less than ``inside`` percent fit into the picture or it hides too much of another."""
        cover, left, top = coverage(figure, pose)
        whole = (2 * cover >= _FULL_COVER).sum()
        height, width = self.owner.shape
        rows = slice(max(top, 0), min(top + cover.shape[0], height))
        columns = slice(max(left, 0), min(left + cover.shape[1], width))
        cover = cover[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        mask = 2 * cover >= _FULL_COVER
        if 100 * mask.sum() < inside * whole or self.hides_too_much(rows, columns, mask, entry):
            return False
        below = self.picture[rows, columns]
        colours = _paint(stream, below, mask)
        share = cover[..., None]
        self.picture[rows, columns] = (below * (_FULL_COVER - share) + colours * share) // _FULL_COVER
        self.owner[rows, columns][mask] = entry
        self.entries[entry].drawn += int(mask.sum())
        return True


def _paint(stream: Stream, below: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Choose a bright texture that stands out, more or less, from what is below it."""
    surroundings = below[mask].sum(axis=0) // max(int(mask.sum()), 1)
    wanted = stream.integer(150, 360)
    colours = stream.integers(110, 256, (6, 3))
    contrasts = abs(colours - surroundings).sum(axis=1)
    enough = contrasts >= wanted
    first = colours[int(enough.argmax()) if enough.any() else int(contrasts.argmax())]
    second = np.clip(first + stream.integers(-50, 51, (3,)), 0, 255)
    colours = blend(stream.choice(FILLS)(stream, *mask.shape), first, second)
    if stream.chance(25):
        padded = np.pad(mask, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        colours = np.where(core[..., None], colours, colours // 3)
    return colours


def _background(stream: Stream, size: int) -> np.ndarray:
    first = stream.integers(20, 110, (3,))
    second = np.clip(first + stream.integers(-40, 41, (3,)), 0, 255)
    picture = blend(stream.choice(BACKGROUNDS)(stream, size, size), first, second)
    grain = value_noise(stream, size, size, stream.integer(2, 5)) - 128
    return picture + grain[..., None] * stream.integer(0, 50) // 256


def _radius(stream: Stream, size: int) -> int:
    """A radius in 1/12 pixel."""
    step = stream.integer(0, len(_DIAMETERS) - 1)
    low, high = _DIAMETERS[step] * SUBPIXELS, _DIAMETERS[step + 1] * SUBPIXELS
    return stream.integer(low, high) * size // 256


def _pose(stream: Stream, size: int, radius: int) -> Pose:
    return Pose(
        x=stream.integer(0, size * SUBPIXELS),
        y=stream.integer(0, size * SUBPIXELS),
        radius=radius,
        angle=stream.integer(-_TILT, _TILT + 1),
        squash=stream.integer(0, 72),
        detail=stream.integer(0, 256),
    )


def _draw_shape(stream: Stream, canvas: _Canvas, label: int | None) -> None:
    """Draw an object, or a distractor where the label is None."""
    size = len(canvas.owner)
    figure = stream.choice(tuple(DISTRACTORS.values())) if label is None else tuple(CLASSES.values())[label]
    # The detail that tells a distractor from an object must not lie outside the picture.
    inside = 100 if label is None else 60
    radius = _radius(stream, size)
    entry = canvas.add(label)
    for _ in range(_TRIES):
        if canvas.draw(stream, figure, _pose(stream, size, radius), entry, inside):
            return


def _draw_crowd(stream: Stream, canvas: _Canvas, label: int) -> None:
    """Draw many tiny shapes of one class close together."""
    size = len(canvas.owner)
    figure = tuple(CLASSES.values())[label]
    entry = canvas.add(label, crowd=True)
    spread = size * stream.integer(10, 22) * SUBPIXELS // 128
    centre = stream.integers(size * SUBPIXELS // 4, size * SUBPIXELS * 3 // 4, (2,))
    for _ in range(stream.integer(12, 26)):
        offset = stream.integers(-spread, spread + 1, (2,))
        x, y = (centre + offset).tolist()
        radius = stream.integer(40, 70) * size // 128
        canvas.draw(
            stream,
            figure,
            Pose(x, y, radius, angle=stream.integer(0, TURN), squash=0, detail=stream.integer(0, 256)),
            entry,
        )


def _expose(stream: Stream, picture: np.ndarray) -> np.ndarray:
    """Add uneven light, blur in some pictures, and noise."""
    size = len(picture)
    light = FULL * 3 // 4 + value_noise(stream, size, size, size // 2) // 2
    picture = np.clip(picture, 0, 255) * light[..., None] // FULL
    if stream.chance(20):
        picture = soften(picture)
    strength = stream.integer(4, 20)
    noise = stream.integers(-strength, strength + 1, (2, *picture.shape)).sum(axis=0) // 2
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def compose(stream: Stream, size: int) -> Scene:
    """Draw a picture.

    Args:
        stream: Source of everything that varies.
        size: Height and width in pixels.

    Returns:
        The picture and its annotation. About one in twenty has no object, one in ten a crowd.
    """
    canvas = _Canvas(_background(stream, size), np.full((size, size), -1, dtype=np.int64))
    empty = stream.chance(_EMPTY_PERCENT)
    items = ['object'] * (0 if empty else stream.integer(1, 8)) + ['distractor'] * stream.integer(0, 2)
    if not empty and stream.chance(_CROWD_PERCENT):
        items.append('crowd')
    for item in stream.shuffled(items):
        if item == 'object':
            _draw_shape(stream, canvas, stream.integer(0, len(CLASSES)))
        elif item == 'crowd':
            _draw_crowd(stream, canvas, stream.integer(0, len(CLASSES)))
        else:
            _draw_shape(stream, canvas, None)
    instances = []
    semantic = np.zeros((size, size), dtype=np.uint8)
    for number, entry in enumerate(canvas.entries):
        mask = canvas.owner == number
        if entry.label is not None and mask.any():
            instances.append(Instance(entry.label, mask, entry.crowd))
            semantic[mask] = IGNORE if entry.crowd else entry.label + 1
    return Scene(_expose(stream, canvas.picture), instances, semantic)
