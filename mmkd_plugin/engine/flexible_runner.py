"""The runner of distilled runs that are spread over processes by one of MMEngine's strategies."""

from __future__ import annotations

from typing import Any

from mmengine._strategy import DeepSpeedStrategy
from mmengine.hooks import EMAHook

from mmkd_plugin.compat.checkpoint import readable_refusal
from mmkd_plugin.engine.distilling import Distilling
from mmkd_plugin.engine.preflight import require_no_wrapper
from mmkd_plugin.engine.recomputing import recompute_activations
from mmkd_plugin.engine.safe_runner import SafeFlexibleRunner
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.engine.strategies import with_student
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import RUNNERS


@RUNNERS.register_module()
class FlexibleDistillRunner(Distilling, SafeFlexibleRunner):
    """:class:`DistillRunner` with one of MMEngine's strategies (``strategy=``): DDP, FSDP or DeepSpeed.

    Checkpoints are the same files, so that a run goes on under another strategy, on another number of processes, or
    under ``DistillRunner``. Without a launcher there is one process, whatever strategy is named. Where nothing is
    trained the student is whole in each process.
    """

    _has_begun = False

    def build_strategy(self, strategy: Any = None, launcher: str = 'none', **options: Any) -> Any:
        """Build the strategy; that of one process where there is no launcher."""
        strategy = with_student(strategy, launcher)
        if issubclass(strategy['type'], DeepSpeedStrategy):
            strategy['train_micro_batch_size_per_gpu'] = int(getattr(self._train_dataloader, 'batch_size', None) or 1)
        return super().build_strategy(strategy, launcher=launcher, **options)

    def add_distillation(self) -> bool:
        """Build the student, and add teacher and distiller where the config asks for them."""
        built = not isinstance(self.model, dict)
        if not built:
            self.model = self.strategy.build_model(self.model)
        added = super().add_distillation()
        if not built:
            algorithm = algorithm_of(self)
            recompute_activations(
                self.model if algorithm is None else algorithm.student, self.cfg.get('activation_checkpointing')
            )
            # MMEngine's runner with strategies overlooks this key; what is distilled is compiled in parts.
            self._compile = False if algorithm is not None else self.cfg.get('compile') or False
        return added

    def load_or_resume(self) -> None:
        """Load or resume once the hooks have begun; MMEngine's runner with strategies loads before they do."""
        self.call_hook('before_run')
        self._has_begun = True
        super().load_or_resume()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks; ``before_run`` was called when the checkpoint was loaded."""
        if fn_name == 'before_run' and self._has_begun:
            self._has_begun = False
            return
        super().call_hook(fn_name, **kwargs)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume, or say in one sentence why that cannot be."""
        with readable_refusal(filename, weights=True):
            super().resume(filename, *args, **kwargs)

    def _build_param_scheduler(self, scheduler: Any, optim_wrapper: Any) -> list:
        """Schedulers of a discriminator's optimizer."""
        return self.strategy.build_param_scheduler(scheduler, optim_wrapper)

    def _check_engine(self) -> None:
        require_no_wrapper(self.cfg)
        averaging = next((type(hook).__name__ for hook in self.hooks if isinstance(hook, EMAHook)), None)
        if averaging is not None and self.strategy.shards:
            raise DistillError(
                f'{averaging} averages whole weights, of which each process has a part alone under '
                f'{self.strategy.shards}; leave it out, or take DDPStrategy.'
            )
