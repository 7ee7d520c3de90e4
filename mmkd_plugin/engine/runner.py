"""Runner that turns a stock config with a ``distill`` block into a distilled run."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.compat.checkpoint import readable_refusal
from mmkd_plugin.engine.distilling import Distilling
from mmkd_plugin.engine.flexible_runner import FlexibleDistillRunner
from mmkd_plugin.engine.optimizer import with_distiller
from mmkd_plugin.engine.preflight import require_no_strategy
from mmkd_plugin.engine.recomputing import require_modules
from mmkd_plugin.engine.safe_runner import SafeRunner
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.registry import RUNNERS


@RUNNERS.register_module()
class DistillRunner(Distilling, SafeRunner):
    """MMEngine's runner plus the ``distill`` block.

    Building it builds the stock student only, so that testing needs neither teacher nor its checkpoint; ``train()``
    adds the teacher and the distiller. A config whose ``model`` is a ``DistillAlgorithm`` already is treated alike.
    Without a block, or with all its weights at zero, it is MMEngine's runner.
    """

    _training_wrapper = False

    @classmethod
    def from_cfg(cls, cfg: Any) -> Any:
        """Build the runner of a config; that of one with a ``strategy`` is a :class:`FlexibleDistillRunner`."""
        if cls is DistillRunner and cfg.get('strategy') is not None:
            return FlexibleDistillRunner.from_cfg(cfg)
        return super().from_cfg(cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap for distributed runs, but not before it is known whether the student is trained or tested."""
        if self.distributed and self._distils and not self._training_wrapper:
            return model
        return super().wrap_model(model_wrapper_cfg, model)

    def build_optim_wrapper(self, optim_wrapper: dict | OptimWrapper) -> OptimWrapper:
        """Build the student's optimizer by the stock rules and add what distillation trains as a group of its own.

        Rules that go by parameter names or depth (``paramwise_cfg``, layer-wise decay) so see the student's names.
        """
        model = self.model.module if is_model_wrapper(self.model) else self.model
        if not isinstance(model, DistillAlgorithm) or not isinstance(optim_wrapper, dict):
            return super().build_optim_wrapper(optim_wrapper)
        whole, self.model = self.model, model.student
        try:
            wrapper = super().build_optim_wrapper(optim_wrapper)
        finally:
            self.model = whole
        return with_distiller(wrapper, model.distiller)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the student; files that its modules read while they are built are read as safely as a checkpoint."""
        with readable_refusal('a file that the student reads'):
            return super().build_model(model)

    def _init_model_weights(self) -> None:
        """Initialise; pretrained weights are read as safely as a checkpoint."""
        with readable_refusal('the pretrained weights of the student'):
            super()._init_model_weights()

    def _maybe_compile(self, target: str) -> None:
        """Compile the whole step, as MMEngine does, where there is no teacher; with one the student is compiled."""
        if algorithm_of(self) is None:
            super()._maybe_compile(target)

    def _check_engine(self) -> None:
        if self._distils:
            require_no_strategy(self.cfg)

    def add_distillation(self) -> bool:
        """Add teacher and distiller; what the config wants recomputed must be modules of the student."""
        added = super().add_distillation()
        algorithm = algorithm_of(self)
        if algorithm is not None:
            require_modules(algorithm.student, self.cfg.get('activation_checkpointing'))
        return added

    def _wrap_for_run(self, model: Any) -> Any:
        self._training_wrapper = True
        return model if is_model_wrapper(model) else self.wrap_model(self.cfg.get('model_wrapper_cfg'), model)
