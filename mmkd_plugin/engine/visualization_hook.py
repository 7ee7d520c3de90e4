"""Hook that draws what a training compares, at an interval."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import HOOKS

PICTURES = ('attention', 'features', 'areas', 'cells', 'predictions')
"""What can be drawn; what a config does not have, such as FGI's cells, is left out."""


@HOOKS.register_module()
class DistillVisualizationHook(Hook):
    """Draw what the current batch shows to teacher and student, through the runner's visualizer.

    The pictures are those of ``mmkd visualize``: spatial and channel attention, differences of features, FGD's areas,
    FGI's cells, and predictions. They are drawn at the first step and then at an interval, of what the step has
    recorded; only predictions run both models once more on the images that are drawn. The main process draws, and
    other steps cost nothing. Weights, statistics and random numbers of the run stay as they are.

    Args:
        interval: Steps between two drawings.
        images: How many images of the batch are drawn, from its first.
        pictures: Which of them, by default all.
        method: Whose maps are shown; by default FGD's, or else those of the first method that compares any.
    """

    # Before the log, so that a picture and the numbers of its step stand together.
    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 500,
        images: int = 1,
        pictures: Sequence[str] = PICTURES,
        method: Optional[str] = None,
    ) -> None:
        for key, value in (('interval', interval), ('images', images)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DistillError(
                    f'"{key}" of DistillVisualizationHook is {value!r}; it must be a whole number from 1.'
                )
        if isinstance(pictures, str):
            pictures = (pictures,)
        for name in pictures:
            if name not in PICTURES:
                raise DistillError(f'DistillVisualizationHook draws no "{name}": {nearest(name, PICTURES)}')
        self.interval = interval
        self.images = images
        self.pictures = tuple(pictures)
        self.method = method
        self._first = True
        self._stop: Callable[[], None] = lambda: None

    def before_train(self, runner: Runner) -> None:
        """Refuse a method that the block does not have, before the first step."""
        from mmkd_plugin.views.compared import compared_losses

        algorithm = algorithm_of(runner)
        self._first = True
        if algorithm is None:
            print_log(
                'DistillVisualizationHook has nothing to draw, because the run does not distil.',
                'current',
                logging.WARNING,
            )
        elif {'attention', 'features'} & set(self.pictures):
            compared_losses(algorithm.distiller, self.method)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Look at this step, if it is one to draw."""
        if not self._first and (runner.iter + 1) % self.interval:
            return
        algorithm = algorithm_of(runner)
        self._first = False
        if algorithm is None or not is_main_process():
            return
        batch: List[Tuple] = []
        step = runner.iter + 1

        def observe(algorithm: DistillAlgorithm, losses: dict) -> None:
            self._stop()
            inputs, samples = batch[-1]
            meta = getattr(runner.visualizer, 'dataset_meta', None) or {}
            for name, pixels in self._draw(algorithm, inputs, samples, meta.get('classes') or ()).items():
                runner.visualizer.add_image(name, pixels, step=step)

        def stop() -> None:
            handle.remove()
            if observe in algorithm.step_observers:
                algorithm.step_observers.remove(observe)

        handle = algorithm.student.register_forward_pre_hook(lambda module, inputs: batch.append(inputs[:2]))
        algorithm.step_observers.append(observe)
        self._stop = stop

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Optional[dict] = None
    ) -> None:
        """Look no longer, also where the step did not come so far."""
        self._stop()

    @torch.no_grad()
    def _draw(self, algorithm: DistillAlgorithm, inputs: Any, samples: Any, classes: Sequence[str]) -> Dict[str, Any]:
        """The pictures of this step by name."""
        from mmkd_plugin.utilities.clips import key_frames
        from mmkd_plugin.views.drawing import figure_pixels
        from mmkd_plugin.views.step import step_figures

        inputs, samples = key_frames(inputs, samples)
        drawn = {}
        count = min(self.images, len(inputs))
        for index in range(count):
            figures = step_figures(algorithm, inputs, samples, index, self.pictures, self.method, classes)
            for name, figure in figures.items():
                drawn[f'distill_{name}' + (f'_{index}' if count > 1 else '')] = figure_pixels(figure)
        return drawn
