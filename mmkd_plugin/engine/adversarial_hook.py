"""Hook that trains the discriminators of a distilled run."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import apply_to

from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.registry import HOOKS
from mmkd_plugin.utilities.text import without_prefix

STATE_KEY = 'adversary_state'
"""Where a checkpoint holds the discriminators' optimizers and schedulers; their weights lie in ``distill_state``."""


@HOOKS.register_module()
class AdversarialHook(Hook):
    """One step of each discriminator after each step of the student; a run without one is left alone.

    What the discriminator minimises is logged as ``discriminator.<method>.adversarial`` and ``.penalty``, its learning
    rate as ``.lr``.
    """

    priority = 'NORMAL'

    def before_run(self, runner: Runner) -> None:
        """Build optimizers and schedulers."""
        for name, adversary in _adversaries(runner).items():
            adversary.build_optimizer(runner.optim_wrapper, _label(name))
            if adversary.param_scheduler:
                adversary.schedulers = runner._build_param_scheduler(adversary.param_scheduler, adversary.wrapper)

    def before_train(self, runner: Runner) -> None:
        """Tell the wrappers how many iterations there are, for accumulation."""
        for adversary in _adversaries(runner).values():
            adversary.wrapper.initialize_count_status(adversary.discriminator, runner.iter, runner.max_iters)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Train each discriminator, log, and step what is scheduled by iteration."""
        for name, adversary in _adversaries(runner).items():
            adversary.step(runner.seed, runner.iter, get_rank())
            logged = dict(adversary.terms, lr=adversary.wrapper.get_lr()['lr'][0])
            for term, value in logged.items():
                runner.message_hub.update_scalar(f'train/{_label(name)}.{term}', value)
            _step(adversary.schedulers, by_epoch=False)

    def after_train_epoch(self, runner: Runner) -> None:
        """Step what is scheduled by epoch."""
        for adversary in _adversaries(runner).values():
            _step(adversary.schedulers, by_epoch=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the state of optimizers and schedulers beside the student's."""
        states = {name: adversary.state_dict() for name, adversary in _adversaries(runner).items()}
        if states:
            checkpoint[STATE_KEY] = apply_to(states, lambda item: hasattr(item, 'cpu'), lambda item: item.cpu())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore that state when training goes on; a checkpoint of another block is refused with its weights."""
        if runner._resume:
            saved = checkpoint.get(STATE_KEY, {})
            for name, adversary in _adversaries(runner).items():
                if name in saved:
                    adversary.load_state_dict(saved[name])


def _adversaries(runner: Runner) -> dict:
    algorithm = algorithm_of(runner)
    return {} if algorithm is None else algorithm.adversaries


def _label(loss: str) -> str:
    """Start of the logged names."""
    return f'discriminator.{without_prefix(loss, "loss_")}'


def _step(schedulers: list, by_epoch: bool) -> None:
    for scheduler in schedulers:
        if scheduler.by_epoch is by_epoch:
            scheduler.step()
