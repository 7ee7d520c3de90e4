"""Repeat a kept step: the same batch, random numbers and weights, with every number of it in view."""

from __future__ import annotations

import contextlib
import dataclasses
import os.path as osp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.distillers.schedule import Progress
from mmkd_plugin.engine.fault import bad_weights, read_step
from mmkd_plugin.engine.readings import Label, losses_by_level, terms_by_level
from mmkd_plugin.engine.runner import DistillRunner
from mmkd_plugin.engine.state_hook import STATE_KEY, algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.nested import tensors_of
from mmkd_plugin.utilities.plain import from_plain
from mmkd_plugin.utilities.rng import restore_random_states
from mmkd_plugin.utilities.text import without_prefix

_ENGINE = ('strategy', 'compile', 'activation_checkpointing')
_NOT_NEEDED = (*_ENGINE, 'train_dataloader', 'train_cfg', 'param_scheduler', 'auto_scale_lr') + tuple(
    f'{split}_{part}' for split in ('val', 'test') for part in ('dataloader', 'cfg', 'evaluator')
)


@dataclasses.dataclass
class Replay:
    """What a repeated step gave.

    Attributes:
        iteration: Number of the step.
        images: Of its batch.
        weights: Which weights it started from, in words.
        numbers: Each term and loss with its value.
        gradients: Norm of the gradient of each part of the model.
        first: The first module whose output is not finite, in words; empty where there is none.
        kept: What was not finite in the run.
        verdict: Whether it was so again, in one sentence.
    """

    iteration: int
    images: list[str]
    weights: str
    numbers: dict[Label, float]
    gradients: dict[str, float]
    first: str
    kept: list[Label]
    verdict: str


def replay(folder: str) -> Replay:
    """Repeat the step that a run has kept.

    Args:
        folder: A folder ``fault_iter_<iteration>``.

    Returns:
        What the step gave.

    Raises:
        DistillError: If the folder holds no step, or not the batch of one.
    """
    state = read_step(folder)
    if state['batch'] is None:
        raise DistillError(
            f'The batch of the step in "{folder}" could not be kept, since it holds objects of type '
            f'{state["left_out"]}; the images are {", ".join(state["images"]) or "not known"}.'
        )
    runner, weights = _rebuilt(state, Path(folder))
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    step = _Repetition(runner, model)
    step.run(state)
    kept = [Label(*finding[:3]) for finding in state['findings']]
    return Replay(
        iteration=state['iteration'],
        images=state['images'],
        weights=weights,
        numbers=step.numbers,
        gradients=step.gradients,
        first=step.first,
        kept=kept,
        verdict=_verdict(state, kept, step),
    )


def _rebuilt(state: dict[str, Any], folder: Path) -> tuple[Runner, str]:
    """The run up to the step, and in words where its weights are from."""
    cfg = Config(state['config'])
    for key in _NOT_NEEDED:
        cfg.pop(key, None)
    optimizer = cfg.pop('optim_wrapper')
    imports = cfg.get('custom_imports')
    if imports:
        import_modules_from_strings(**imports)
    where = folder if folder.is_dir() else folder.parent
    start = cfg.get('load_from')
    cfg.merge_from_dict(
        dict(work_dir=str(where / 'replay'), launcher='none', resume=False, load_from=None, visualizer=None)
    )
    cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': state['seed']}
    cfg.custom_hooks = []
    cfg.experiment_name = f'replay_{state["iteration"]}_{torch.randint(10**9, ()).item()}'
    runner = DistillRunner.from_cfg(cfg)
    if not runner.add_distillation():
        runner.model = runner.wrap_model(None, runner.model)
    runner.optim_wrapper = runner.build_optim_wrapper(_usable(optimizer))
    weights = _load_weights(runner, state, start)
    return runner, weights


def _usable(config: dict) -> dict:
    """The optimizer's config, in single precision where there is no GPU."""
    if 'Amp' in str(config.get('type')) and not torch.cuda.is_available():
        plain = {key: config[key] for key in config if key not in ('loss_scale', 'dtype', 'use_fsdp')}
        return {**plain, 'type': 'OptimWrapper'}
    return dict(config)


def _load_weights(runner: Runner, state: dict[str, Any], start: str | None) -> str:
    """Load the kept weights, or else those of the last checkpoint, or else those that the run began with."""
    model = runner.model
    kept, checkpoint = state['weights'], state['checkpoint']
    if kept is None and checkpoint and osp.exists(checkpoint):
        kept = load_checkpoint_file(checkpoint)
        words = f'those of "{checkpoint}", since the run had no finite ones left'
    elif kept is not None:
        before = kept['iteration'] < state['iteration']
        words = 'those before the step' if before else f'those after iteration {kept["iteration"]}, later than the step'
    else:
        runner._init_model_weights()
        if start:
            runner.load_checkpoint(start)
        return 'those that the run began with, since it had no finite ones left and no checkpoint'
    model.load_state_dict(kept['state_dict'])
    algorithm = algorithm_of(runner)
    if algorithm is not None and STATE_KEY in kept:
        algorithm.load_extra_state(kept[STATE_KEY])
        if algorithm.distiller.balance is not None:
            algorithm.distiller.balance.paused = True
    return words


class _Repetition:
    """One step with all of its numbers.

    Args:
        runner: The rebuilt run.
        model: Its model.
    """

    def __init__(self, runner: Runner, model: Any) -> None:
        self.runner, self.model = runner, model
        self.numbers: dict[Label, float] = {}
        self.gradients: dict[str, float] = {}
        self.first = ''
        self.broke = ''

    def run(self, state: dict[str, Any]) -> None:
        """Run forward and backward."""
        runner, model = self.runner, self.model
        progress = Progress(*state['progress'])
        for key, value in zip(('iter', 'epoch', 'max_iters', 'max_epochs'), progress):
            runner.message_hub.update_info(key, value)
        algorithm = algorithm_of(runner)
        if algorithm is not None:
            algorithm.distiller.progress = progress
            algorithm.step_observers.append(self._observe)
        wrapper = runner.optim_wrapper
        scaler = getattr(wrapper, 'loss_scaler', None)
        if scaler is not None and state.get('scaler'):
            scaler.load_state_dict(state['scaler'])
        model.train()
        batch = _built(state['batch'])
        restore_random_states(state['random'])
        with self._watched(), wrapper.optim_context(model):
            data = model.data_preprocessor(batch, True)
            losses = model._run_forward(data, mode='loss')
        if algorithm is None:
            self._add(losses_by_level(losses))
        total, _ = model.parse_losses(losses)
        wrapper.backward(wrapper.scale_loss(total))
        if scaler is not None:
            scaler.unscale_(wrapper.optimizer)
        self._read_gradients()
        if algorithm is not None:
            self._read_discriminators(algorithm, state)

    def _observe(self, algorithm: DistillAlgorithm, losses: dict[str, Any]) -> None:
        self._add(losses_by_level(losses))
        self._add(terms_by_level(algorithm))

    def _add(self, values: dict[Label, Tensor]) -> None:
        self.numbers.update((label, float(value)) for label, value in values.items())

    def _read_gradients(self) -> None:
        """The norm of each part: the student's children, and what distillation adds."""
        parts: dict[str, list[Tensor]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                path = without_prefix(name, 'architecture.').split('.')
                part = '.'.join(path[:3]) if path[0] == 'distiller' else path[0]
                parts.setdefault(part, []).append(parameter.grad.float().norm())
        self.gradients = {part: float(torch.stack(norms).norm()) for part, norms in parts.items()}

    def _read_discriminators(self, algorithm: DistillAlgorithm, state: dict[str, Any]) -> None:
        for name, adversary in algorithm.adversaries.items():
            terms = adversary.compute(state['seed'], state['iteration'] - 1, state['rank'])
            label = without_prefix(name, 'loss_')
            self._add({Label('discriminator', f'{label}.{key}'): value.detach() for key, value in terms.items()})

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Note the first module, in the order of the forward pass, whose output is not finite."""
        algorithm = algorithm_of(self.runner)
        sides: dict[str, nn.Module] = {'': self.model}
        if algorithm is not None:
            several = len(algorithm.teachers) > 1
            for name, teacher in algorithm.teachers.items():
                sides[f' of teacher "{name}"' if several else ' of the teacher'] = teacher.model
                teacher.economy.without_compiling()
        handles = [
            module.register_forward_hook(self._hook(without_prefix(path, 'architecture.'), side))
            for side, root in sides.items()
            for path, module in root.named_modules()
            if path
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, path: str, side: str) -> Any:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if self.first or _finite(outputs):
                return
            reason = 'from an input that is finite'
            if not _finite(inputs):
                reason = 'from an input that is not finite either'
            elif bad_weights(module):
                reason = 'from weights that are not finite'
            self.first = f'"{path}"{side} ({type(module).__name__}), {reason}'

        return hook


def _built(batch: Any) -> Any:
    try:
        return from_plain(batch)
    except TypeError as error:
        raise DistillError(
            f'The kept batch asks for "{error}", which is no structure of a batch; let the run that stopped write it '
            'again.'
        ) from None


def _finite(item: Any) -> bool:
    return all(not value.is_floating_point() or bool(torch.isfinite(value).all()) for value in tensors_of(item))


def _verdict(state: dict[str, Any], kept: list[Label], step: _Repetition) -> str:
    """Whether the step was not finite again."""
    again = {label for label, value in step.numbers.items() if not _is_finite(value)}
    broken = [part for part, norm in step.gradients.items() if not _is_finite(norm)]
    label = kept[0]
    if again & set(kept):
        return f'The fault is reproduced: {next(item for item in kept if item in again)} is not finite again.'
    if again:
        return f'Another fault appears: {next(iter(again))} is not finite, but {label} is.'
    if broken and label.kind in ('gradient', 'scale', 'weight'):
        return f'The fault is reproduced: the gradient of "{broken[0]}" is not finite, while all losses are.'
    if broken:
        return f'Another fault appears: the gradient of "{broken[0]}" is not finite, but all losses are.'
    if label.kind == 'weight':
        return (
            'The losses and gradients of the step are finite, so it was the update that broke the weights: the '
            'learning rate is too large for them.'
        )
    return (
        f'The fault is not reproduced: {label} is finite in this repetition, which started from other weights or on '
        'another device than the run.'
    )


def _is_finite(value: float) -> bool:
    return value == value and value not in (float('inf'), float('-inf'))
