"""Hook that ends a run when something stops being finite, at whatever step, before it is saved."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, is_distributed
from mmengine.hooks import CheckpointHook, Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.engine.fault import Fault, Step, report
from mmkd_plugin.engine.readings import Finding, Label, Reading, losses_by_level, peaks, read, terms_by_level
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import HOOKS
from mmkd_plugin.utilities.distributed import plain_name
from mmkd_plugin.utilities.rng import random_states
from mmkd_plugin.utilities.text import without_prefix

MOST_PENDING = 8
"""Steps whose batches are kept at the most; a device that lags further behind is waited for."""


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stop where a term, a gradient or a weight is not finite, and keep the step for ``mmkd replay``.

    Of each step it notes every loss and distillation term by level, the largest gradient of each parameter, and after
    the update the largest weight of each tensor. Where the host computes, it looks at once: at the terms and gradients
    before the optimizer moves, so that the weights that are kept are still those that the step began with.

    A GPU is never waited for. The numbers are copied behind the step's own work, and each later call asks whether they
    have arrived; the first call is right before the optimizer moves, where clipping or mixed precision has just waited,
    so that the weights are those of the step there too. Without both, a fault is found a step later, and the batch of
    that step is still held. Only before a checkpoint, a validation and the end of the training are they waited for.

    Processes of a distributed run agree before one stops: at each step on the host, on GPUs every ``interval`` steps
    and before each checkpoint. The one with the earliest fault keeps its step, and all end with its sentence.

    A step that the scaler of mixed precision skips is no fault: gradients are left to the scaler, and only a loss scale
    that has fallen to nothing is one. Buffers that hold infinities on purpose when the training starts are left alone.

    Args:
        delayed: Whether to look without waiting; by default on a GPU alone.
        interval: Steps between two agreements of a distributed run on GPUs; by default that of the log.
    """

    # Behind the discriminators' step and the log, before the checkpoint.
    priority = 'LOW'

    def __init__(self, delayed: bool | None = None, interval: int | None = None) -> None:
        self.delayed = delayed
        self.interval = interval
        self._runner: Runner | None = None

    def before_train(self, runner: Runner) -> None:
        """Start to look."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        algorithm = algorithm_of(runner)
        if self.delayed is None:
            self.delayed = next(model.parameters()).is_cuda
        if self.interval is None:
            loggers = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
            self.interval = min(loggers) if loggers else 50
        self._since_start = 0
        self._updates = runner.iter
        self._pending: deque[tuple[Step, Reading]] = deque()
        self._fault: Fault | None = None
        self._step: Step | None = None
        self._last: Step | None = None
        self._noted: dict[Label, Tensor] = {}
        self._weights = self._trained_tensors(model)
        self._require_finite_start()
        self._runner, self._since = runner, time.time()
        with contextlib.ExitStack() as stack:
            if algorithm is not None:
                algorithm.step_observers.append(self._note_terms)
                stack.callback(algorithm.step_observers.remove, self._note_terms)
            else:
                stack.callback(model.register_forward_hook(self._note_losses).remove)
            wrapper = runner.optim_wrapper
            for each in wrapper.optim_wrappers.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
                self._watch(each, stack)
            self._ending = stack.pop_all()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Hold the batch and the random states until the step is known to be finite."""
        self._noted = {}
        self._updated = False
        self._step = self._last = Step(runner.iter + 1, runner.epoch, data_batch, random_states(), get_rank())

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Note the weights, and look at what has arrived."""
        algorithm = algorithm_of(runner)
        for name, adversary in (algorithm.adversaries if algorithm is not None else {}).items():
            label = without_prefix(name, 'loss_')
            self._noted.update(
                {Label('discriminator', f'{label}.{key}'): item for key, item in adversary.terms.items()}
            )
        if self._updated:
            self._updates = runner.iter + 1
            self._noted.update(peaks('weight', self._weights))
        self._send()
        self._since_start += 1
        self._step = None
        if is_distributed() and self.delayed:
            self._look(wait=False)
            if self._agreement_due(runner):
                self._agree()
        elif is_distributed():
            self._agree()
        else:
            self._look(wait=not self.delayed or self._checkpoint_due(runner))
            self._stop()

    def after_train_epoch(self, runner: Runner) -> None:
        """Look before the checkpoint of the epoch."""
        self._agree()

    def before_val_epoch(self, runner: Runner) -> None:
        """Look before a validation within the training, behind which the best checkpoint is saved."""
        if self._runner is not None:
            self._agree()

    def after_train(self, runner: Runner) -> None:
        """Look at the last steps."""
        self._agree()
        self.release()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Look once more, and at what is saved itself, whoever saves; one process does, so the others are not asked."""
        if self._runner is None:
            return
        self._look(wait=True)
        if self._fault is None and self._last is not None:
            saved = checkpoint.get('state_dict', {})
            named = [(name, saved[name]) for name, _ in self._weights if isinstance(saved.get(name), Tensor)]
            reading = read(peaks('weight', named))
            findings = reading.findings() if reading is not None else []
            self._fault = Fault(self._last, findings) if findings else None
        self._stop()

    def release(self) -> None:
        """Take everything off that watches the run."""
        if self._runner is not None:
            self._runner = None
            self._ending.close()
            self._pending.clear()
            self._step = self._last = None

    def explain(self) -> None:
        """Tell of a fault where the run broke on what it led to.

        Raises:
            DistillError: If a step before was not finite.
        """
        if self._runner is not None:
            self._look(wait=True)
            self._stop()

    def _note_terms(self, algorithm: DistillAlgorithm, losses: dict[str, Any]) -> None:
        """Note the terms while their levels are still apart."""
        if self._step is None:
            return
        self._noted.update(terms_by_level(algorithm))
        self._noted.update(losses_by_level(losses))
        # The self-check, which looks next, waits for the first step too, and cannot tell what this can.
        if not is_distributed() and (not self.delayed or not self._since_start):
            self._send()
            self._look(wait=True)
            self._stop()

    def _note_losses(self, model: Any, inputs: Any, outputs: Any) -> None:
        """Note the losses of a student that learns without a teacher."""
        if isinstance(outputs, dict) and self._step is not None:
            self._noted.update(losses_by_level(outputs))

    def _watch(self, wrapper: Any, stack: contextlib.ExitStack) -> None:
        """Look at the gradients before they are clipped, which would spread a NaN to all of them."""
        step, optimizer = wrapper.step, wrapper.optimizer

        def watched(**options: Any) -> None:
            self._before_update(wrapper)
            step(**options)

        wrapper.step = watched
        stack.callback(lambda: wrapper.__dict__.pop('step', None))
        # DeepSpeed's optimizers are none of torch's.
        if hasattr(optimizer, 'register_step_pre_hook'):
            handle = optimizer.register_step_pre_hook(lambda *_: self._before_move())
            stack.callback(handle.remove)

    def _before_update(self, wrapper: Any) -> None:
        """Note the gradients, or the scale of the scaler that judges them."""
        if self._step is None:
            return
        self._updated = True
        scaler = getattr(wrapper, 'loss_scaler', None)
        if scaler is not None and scaler.is_enabled():
            scale = getattr(scaler, '_scale', None)
            if isinstance(scale, Tensor):
                self._noted[Label('scale', 'scale')] = scale
        else:
            self._noted.update(peaks('gradient', self._gradients(wrapper.optimizer)))
        self._send()
        if not self.delayed:
            if is_distributed():
                self._agree()
            else:
                self._look(wait=True)
                self._stop()

    def _before_move(self) -> None:
        """Stop before the update where the numbers have arrived by now."""
        if self._step is not None and self.delayed and not is_distributed():
            self._look(wait=False)
            self._stop()

    def _gradients(self, optimizer: Any) -> Iterator[tuple[str, Tensor]]:
        for group in optimizer.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None:
                    yield self._names.get(id(parameter), 'an unnamed parameter'), parameter.grad

    def _trained_tensors(self, model: Any) -> list[tuple[str, Tensor]]:
        """Everything of the run that is saved as a number, by the names that a checkpoint gives it."""
        named = [(without_prefix(plain_name(name), 'architecture.'), item) for name, item in model.named_parameters()]
        self._names = {id(item): name for name, item in named}
        buffers = [(without_prefix(plain_name(name), 'architecture.'), item) for name, item in model.named_buffers()]
        floating = [(name, item) for name, item in buffers if item.is_floating_point() and item.numel()]
        finite = [(name, item) for name, item in floating if bool(torch.isfinite(item).all())]
        return named + finite

    def _require_finite_start(self) -> None:
        """Refuse weights that are not finite before anything was trained."""
        found = read(peaks('weight', self._weights))
        faults = found.findings() if found is not None else []
        if faults:
            raise DistillError(
                f'The weight "{faults[0].label.name}" of the student is {faults[0].value} before the first step'
                + (f', as are {len(faults) - 1} more' if len(faults) > 1 else '')
                + '; start from another checkpoint or other pretrained weights.'
            )

    def _send(self) -> None:
        """Let what was noted travel to the host."""
        noted, self._noted = self._noted, {}
        reading = read(noted)
        if reading is not None and self._step is not None and self._fault is None:
            self._pending.append((self._step, reading))

    def _look(self, wait: bool) -> None:
        """Go through the readings that have arrived; the first that is not finite is kept with all of its step."""
        while self._pending and self._fault is None:
            step, reading = self._pending[0]
            if not (wait or len(self._pending) > 2 * MOST_PENDING or reading.ready()):
                return
            self._pending.popleft()
            findings: list[Finding] = reading.findings()
            if findings:
                self._fault = Fault(step, findings)
        if self._fault is not None:
            self._pending.clear()

    def _stop(self) -> None:
        """End the run where there is a fault."""
        if self._fault is not None:
            assert self._runner is not None
            fault, runner = self._fault, self._runner
            sentence = report(runner, fault, self._since, self._updates)
            self.release()
            raise DistillError(sentence)

    def _agree(self) -> None:
        """Look with all processes together; all end where one has a fault."""
        self._look(wait=True)
        if not is_distributed():
            self._stop()
            return
        runner = self._runner
        assert runner is not None
        flag = torch.tensor(float(self._fault is not None))
        all_reduce(flag, op='max')
        if not bool(flag):
            return
        ranks = [item for item in all_gather_object(self._fault.rank if self._fault else None) if item is not None]
        mine = self._fault is not None and self._fault.rank == min(ranks)
        sentence = report(runner, self._fault, self._since, self._updates) if mine and self._fault is not None else ''
        sentences = all_gather_object(sentence)
        self.release()
        raise DistillError(next(sentence for sentence in sentences if sentence))

    def _checkpoint_due(self, runner: Runner) -> bool:
        """Whether a checkpoint, a validation or the end comes after this step."""
        done = runner.iter + 1
        due = [hook.interval for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        return done == runner.max_iters or any(interval > 0 and done % interval == 0 for interval in due)

    def _agreement_due(self, runner: Runner) -> bool:
        assert self.interval is not None
        return (runner.iter + 1) % self.interval == 0 or self._checkpoint_due(runner)


@contextlib.contextmanager
def faults_explained(runner: Runner) -> Iterator[None]:
    """Tell of a step that was not finite where the run broke on it elsewhere, and take the hook off in any case."""
    try:
        yield
    except DistillError:
        raise
    except Exception:
        for hook in _hooks(runner):
            try:
                hook.explain()
            except RuntimeError:
                # A broken device has no more numbers to give; its own error stands.
                break
        raise
    finally:
        for hook in _hooks(runner):
            hook.release()


def _hooks(runner: Runner) -> list[FiniteHook]:
    return [hook for hook in runner.hooks if isinstance(hook, FiniteHook)]
