"""MMEngine's strategies, so that they train a student with its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed
from mmengine._strategy import DDPStrategy, SingleDeviceStrategy
from mmengine.device import get_device
from mmengine.dist import broadcast, is_distributed
from mmengine.model import is_model_wrapper
from mmengine.runner.checkpoint import weights_to_cpu
from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.compat.checkpoint import readable_refusal
from mmkd_plugin.engine.optimizer import with_distiller
from mmkd_plugin.errors import DistillError

if TYPE_CHECKING:
    from mmengine._strategy import SingleDeviceStrategy as _Base
else:
    _Base = object

_KINDS = ('SingleDeviceStrategy', 'DDPStrategy', 'FSDPStrategy', 'DeepSpeedStrategy')


class OfStudent(_Base):
    """What all of them have in common; it stands before one of MMEngine's strategies."""

    shards = ''
    """What to call it where no process has the whole student."""

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the student; files that its modules read while they are built are read as safely as a checkpoint."""
        with readable_refusal('a file that the student reads'):
            return super().build_model(model)

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        """Initialise; pretrained weights are read safely, and all processes start from the same connectors."""
        with readable_refusal('the pretrained weights of the student'):
            model = super()._init_model_weights(model)
        if isinstance(model, DistillAlgorithm):
            for value in model.extra_state().values():
                broadcast(value)
        return model

    def model_state_dict(self) -> dict:
        """The student's state, without the prefix of a wrapper."""
        model: Any = self.model.module if is_model_wrapper(self.model) else self.model
        return weights_to_cpu(model.state_dict())

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """Build the student's optimizer by the stock rules, and add what distillation trains as a group of its own."""
        algorithm: Any = model.module if model is not None and is_model_wrapper(model) else model
        if not isinstance(algorithm, DistillAlgorithm) or not isinstance(optim_wrapper, dict):
            return super().build_optim_wrapper(optim_wrapper, model)
        return with_distiller(super().build_optim_wrapper(optim_wrapper, algorithm.student), algorithm.distiller)


class OneProcess(OfStudent, SingleDeviceStrategy):
    """One process on one device, whatever strategy the config names for more."""


class Processes(OfStudent, DDPStrategy):
    """Several processes, each with the whole student; without a GPU they talk by gloo."""

    model_wrapper: Any

    def _setup_distributed(self, launcher: str = 'pytorch', backend: str = 'nccl', **options: Any) -> None:
        if get_device() == 'cpu' and not is_distributed():
            if launcher != 'pytorch':
                raise DistillError(
                    f'The launcher "{launcher}" gives each process a GPU, and none is visible; start the processes '
                    'with torchrun and --launcher pytorch to train on the host.'
                )
            torch.distributed.init_process_group('gloo')
            return
        super()._setup_distributed(launcher, backend, **options)

    def _wrap_model(self, model: nn.Module) -> Any:
        return self._replicate(model)

    def _replicate(self, model: nn.Module) -> Any:
        """MMEngine's ``MMDistributedDataParallel``, which on the host gets no device."""
        if get_device() == 'cpu':
            defaults = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
            self.model_wrapper = {'device_ids': None, **(self.model_wrapper or defaults)}
        return DDPStrategy._wrap_model(self, model)


def with_student(strategy: Any, launcher: str | None) -> dict:
    """The strategy that does for a student with its teacher what MMEngine's does for a model.

    Args:
        strategy: Config of MMEngine's strategy; None stands for ``DDPStrategy``.
        launcher: How the processes were started; ``'none'`` for one process alone.

    Returns:
        Config of ours.

    Raises:
        DistillError: If there is none for it.
    """
    options = dict(strategy or dict(type='DDPStrategy'))
    kind = options.get('type')
    name = kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
    if name not in _KINDS:
        raise DistillError(
            f'strategy.type is {name}, under which no distilled run was ever tried; take one of {", ".join(_KINDS)}, '
            "or runner_type='mmkd_plugin.DistillRunner' without a strategy."
        )
    if name == 'SingleDeviceStrategy' or launcher == 'none':
        common = ('work_dir', 'experiment_name', 'auto_scale_lr', 'env_kwargs', 'log_kwargs')
        return {**{key: options[key] for key in common if key in options}, 'type': OneProcess}
    if name == 'FSDPStrategy':
        try:
            from mmkd_plugin.engine.sharded import ShardedProcesses
        except ImportError as error:
            raise DistillError(
                'FSDPStrategy needs torch 2.0 or newer; take DDPStrategy, or install a newer torch.'
            ) from error
        return {**options, 'type': ShardedProcesses}
    if name == 'DeepSpeedStrategy':
        from mmkd_plugin.engine.zero import require_deepspeed

        return {**options, 'type': require_deepspeed()}
    return {**options, 'type': Processes}
