"""Every seed of every model of a comparison in one picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmkd_plugin.study.pictures.canvas import save
from mmkd_plugin.study.runs import Outcome
from mmkd_plugin.study.tasks import task_of


def spread_picture(groups: Sequence[Sequence[Outcome]], baseline: str, out: Path, source: str = '') -> Path:
    """Draw a dot for each seed and a bar from one deviation below to one above the mean.

    Args:
        groups: The outcomes of each model, one per seed; the first group comes first, at the top.
        baseline: Name of the model whose mean is drawn as a line through all.
        out: PNG to write.
        source: Text that the file keeps, of what it was made.

    Returns:
        The path written.

    Raises:
        DistillError: If it cannot be written there.
    """
    task = task_of(groups[0][0].metrics)
    points = [[100 * outcome.metrics[task.metrics[task.main]] for outcome in group] for group in groups]
    names = [group[0].name for group in groups]
    figure = Figure(figsize=(8, 1.1 + 0.45 * len(groups)), layout='constrained')
    axis = figure.subplots()
    # Else the picture ends where a bar does.
    axis.use_sticky_edges = False
    for height, (name, values) in enumerate(zip(names, points)):
        mean = statistics.mean(values)
        colour = 'tab:gray' if name == baseline or len(values) == 1 else 'tab:blue'
        if len(values) > 1:
            axis.barh(
                height, 2 * statistics.stdev(values), left=mean - statistics.stdev(values), alpha=0.3, color=colour
            )
        axis.plot([mean, mean], [height - 0.4, height + 0.4], color=colour)
        axis.plot(values, [height] * len(values), 'o', color=colour, markersize=5)
        if name == baseline:
            axis.axvline(mean, color='black', linestyle=':', linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis='x', alpha=0.3)
    # Under the whole figure: long names of rows leave the axes too little room for it.
    text = f'{task.main} in points: a dot for each seed, a bar of one deviation either way around the mean'
    figure.supxlabel(text, fontsize='medium')
    return save(figure, out, source)
