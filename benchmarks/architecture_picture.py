"""Draw the picture of docs/architecture.md: ``python -m benchmarks.architecture_picture``."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

OUT = Path('docs/images/architecture.png')
STUDENT, TEACHER, DISTILLER, PLAIN = '#d7e8f7', '#fde3c8', '#d9f0d8', '#eeeeee'
# Centre, width, height, colour and text of each box, in a frame of 16 x 9.
BOXES = {
    'batch': (1.5, 5.6, 2.2, 1.2, PLAIN, 'batch\nimages and truth,\npreprocessed once'),
    'student': (4.9, 7.4, 2.6, 1.3, STUDENT, 'student\nforward, its own losses'),
    'teacher': (4.9, 3.8, 2.6, 1.5, TEACHER, 'teachers\neval, no gradient,\nonly as far as\nsomething is read'),
    'student records': (8.3, 7.4, 2.4, 1.3, STUDENT, 'recorders\nfeatures, facts of\nthe batch, samples'),
    'teacher records': (8.3, 3.8, 2.4, 1.3, TEACHER, 'recorders\nfeatures, predictions'),
    'connectors': (11.3, 7.4, 2.0, 1.1, DISTILLER, 'connectors\nadapt channels'),
    'resize': (11.3, 5.6, 2.0, 1.1, DISTILLER, 'one size\n(like=...)'),
    'losses': (14.3, 5.6, 2.4, 1.5, DISTILLER, 'losses\nfloat32, terms by\nname, schedules'),
    'sum': (14.3, 8.2, 2.4, 0.9, PLAIN, 'sum, backward'),
    'discriminator': (14.3, 3.0, 2.4, 1.2, DISTILLER, "discriminator\nits own step, after\nthe student's"),
    'checkpoint': (
        6.0,
        1.3,
        9.6,
        1.2,
        PLAIN,
        'checkpoint:  state_dict = the student   |   distill_state = connectors, learned losses,\n'
        "discriminator   |   adversary_state = the discriminator's optimizer and schedule",
    ),
}
ARROWS = (
    ('batch', 'student'),
    ('batch', 'teacher'),
    ('student', 'student records'),
    ('teacher', 'teacher records'),
    ('student records', 'connectors'),
    ('connectors', 'resize'),
    ('teacher records', 'resize'),
    ('resize', 'losses'),
    ('losses', 'sum'),
    ('losses', 'discriminator'),
)


def main() -> None:
    """Draw and save."""
    figure, axes = plt.subplots(figsize=(12, 6.6), dpi=110)
    axes.set_xlim(0, 16)
    axes.set_ylim(0.4, 9)
    axes.axis('off')
    for x, y, width, height, colour, text in BOXES.values():
        box = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle='round,pad=0.05',
            facecolor=colour,
            edgecolor='#555',
        )
        axes.add_patch(box)
        first, _, rest = text.partition('\n')
        if rest and 'checkpoint' not in first:
            lines = rest.count('\n') + 1
            axes.text(x, y + 0.16 * lines, first, ha='center', va='center', fontsize=10, fontweight='bold')
            axes.text(x, y - 0.2, rest, ha='center', va='center', fontsize=8.5)
        else:
            axes.text(x, y, text, ha='center', va='center', fontsize=9)
    for start, end in ARROWS:
        _arrow(axes, BOXES[start], BOXES[end])
    own = dict(arrowstyle='->', color='#555', linestyle='dashed')
    axes.annotate('', xy=(13.05, 8.3), xytext=(5.4, 8.1), arrowprops={**own, 'connectionstyle': 'arc3,rad=-0.08'})
    axes.text(9.3, 8.75, "the student's own losses, unchanged or with their share", ha='center', fontsize=8.5)
    figure.savefig(OUT, bbox_inches='tight')
    print(f'written: {OUT}')


def _arrow(axes: Axes, start: tuple, end: tuple) -> None:
    """An arrow between the sides of two boxes that face each other."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    if abs(dx) >= abs(dy):
        tail = (start[0] + (start[2] / 2 + 0.05) * (1 if dx > 0 else -1), start[1])
        head = (end[0] - (end[2] / 2 + 0.08) * (1 if dx > 0 else -1), end[1])
    else:
        tail = (start[0], start[1] + (start[3] / 2 + 0.05) * (1 if dy > 0 else -1))
        head = (end[0], end[1] - (end[3] / 2 + 0.08) * (1 if dy > 0 else -1))
    axes.annotate('', xy=head, xytext=tail, arrowprops=dict(arrowstyle='->', color='#333', linewidth=1.3))


if __name__ == '__main__':
    main()
