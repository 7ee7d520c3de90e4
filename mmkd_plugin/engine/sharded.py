"""The strategy that shards a student over processes, with torch's ``FullyShardedDataParallel``."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
from mmengine._strategy import SingleDeviceStrategy
from mmengine._strategy.fsdp import FSDPStrategy
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullStateDictConfig
from torch.distributed.fsdp import FullyShardedDataParallel as Sharded
from torch.distributed.fsdp.fully_sharded_data_parallel import FullOptimStateDictConfig
from torch.nn.utils import clip_grad_norm_

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.engine.strategies import Processes
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.distributed import mean_over_ranks
from mmkd_plugin.utilities.text import without_prefix

_SETTINGS = 'base_param_settings'
"""What MMEngine's optimizer wrappers add to the state of the optimizer."""


class ShardedProcesses(Processes, FSDPStrategy):
    """MMEngine's ``FSDPStrategy`` for a student with its teacher.

    The student alone is sharded: its weights, gradients and the state of its optimizer. The teacher, which has neither
    gradients nor an optimizer, the connectors and the learned losses are whole in each process; gradients of the last
    two are averaged. Checkpoints are those of any other run. Where nothing is trained the student is whole.
    """

    shards = 'FSDPStrategy'

    def __init__(self, *, state_dict_cfg: Any = 'full', **options: Any) -> None:
        if state_dict_cfg != 'full':
            raise DistillError(
                f'strategy.state_dict_cfg is {state_dict_cfg!r}, but a checkpoint of a distilled run is a whole '
                "student in one file; leave it out, which stands for 'full'."
            )
        if options.get('skip_init_weights'):
            raise DistillError('strategy.skip_init_weights builds a student without weights; leave it out.')
        super().__init__(state_dict_cfg=state_dict_cfg, **options)
        self._on_host = get_device() == 'cpu'
        if self._on_host:
            # What lies on the host already must not be offloaded to it: torch reads freed memory then.
            self.state_dict_config = FullStateDictConfig(rank0_only=False, offload_to_cpu=False)
            self.optim_state_dict_config = FullOptimStateDictConfig(rank0_only=False, offload_to_cpu=False)
        self._optimizer_config: Any = None
        self._sharded: Any = None
        self._root: Any = None
        self._names: dict[int, str] = {}
        self._shapes: dict[str, torch.Size] = {}
        self._of_shards: set[int] = set()

    def prepare(self, model: Any, *, optim_wrapper: Any = None, **options: Any) -> Any:
        """Prepare; the optimizer is built before the student is sharded, by the names that its parameters have then."""
        self._optimizer_config = optim_wrapper
        return super().prepare(model, optim_wrapper=optim_wrapper, **options)

    def _wrap_model(self, model: nn.Module) -> Any:
        if self._optimizer_config is None:
            self.model_wrapper = None
            return self._replicate(model)
        model = self.convert_model(model.to(get_device()))
        student = model.student if isinstance(model, DistillAlgorithm) else model
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._shapes = {key: value.shape for key, value in student.state_dict().items()}
        self._of_shards = {id(parameter) for parameter in student.parameters()}
        self.optim_wrapper = Processes.build_optim_wrapper(self, self._optimizer_config, model)
        self.model_wrapper = dict(self.model_wrapper or dict(type='MMFullyShardedDataParallel'))
        if self.model_wrapper.get('use_orig_params') is False:
            raise DistillError(
                'strategy.model_wrapper.use_orig_params=False hides the parameters of the student; leave it out.'
            )
        if self._on_host:
            self.model_wrapper['device_id'] = torch.device('cpu')
        if not isinstance(model, DistillAlgorithm):
            self._sharded = self._root = FSDPStrategy._wrap_model(self, model)
            return self._sharded
        model.wrap_student(lambda student: FSDPStrategy._wrap_model(self, student))
        self._sharded, self._root = model.architecture, model
        for parameter in model.distiller.parameters():
            if parameter.requires_grad:
                parameter.register_hook(mean_over_ranks)
        return model

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """Give the optimizer that was built before; sharding has kept its parameters."""
        wrapper = self.optim_wrapper if self._sharded is not None else super().build_optim_wrapper(optim_wrapper, model)
        if isinstance(wrapper, OptimWrapper) and wrapper.clip_grad_kwargs and wrapper.clip_func is clip_grad_norm_:
            wrapper.clip_func = self._clip
        return wrapper

    def model_state_dict(self) -> dict:
        """The whole student's state, in each process."""
        return super().model_state_dict() if self._sharded is None else self._root.state_dict()

    def _clip(self, parameters: Iterable[nn.Parameter], max_norm: float, norm_type: float = 2.0, **_: Any) -> Tensor:
        """Clip by the norm of all gradients; MMEngine would clip each process by that of its own part."""
        whole = [item.grad for item in parameters if id(item) not in self._of_shards and item.grad is not None]
        # Without a limit torch's own sums over the processes and leaves the gradients alone.
        norms = [self._sharded.clip_grad_norm_(math.inf, norm_type)]
        norms += [torch.linalg.vector_norm(gradient.float(), norm_type) for gradient in whole]
        norm = torch.linalg.vector_norm(torch.stack([item.float().to(norms[0].device) for item in norms]), norm_type)
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter in self.optim_wrapper.optimizer.param_groups:
            for item in parameter['params']:
                if item.grad is not None:
                    item.grad.mul_(factor)
        return norm

    def _build_param_scheduler(self, *args: Any, **options: Any) -> Any:
        """Build schedulers as every other strategy does; those of FSDP's know neither epochs' lengths nor defaults."""
        return SingleDeviceStrategy._build_param_scheduler(self, *args, **options)

    def optim_state_dict(self) -> dict:
        """The whole state of the optimizer, by numbers as torch's optimizers write it."""
        if self._sharded is None:
            return SingleDeviceStrategy.optim_state_dict(self)
        named = Sharded.optim_state_dict(self._root, self.optim_wrapper.optimizer)
        groups: list[dict] = []
        numbers: dict[str, int] = {}
        for group in named['param_groups']:
            own = {name: len(numbers) + index for index, name in enumerate(group['params'])}
            groups.append({**group, 'params': list(own.values())})
            numbers.update(own)
        state = {numbers[name]: value for name, value in named['state'].items()}
        settings = self.optim_wrapper.state_dict().get(_SETTINGS)
        return {'state': state, 'param_groups': groups, **({} if settings is None else {_SETTINGS: settings})}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load such a state, each process its part.

        Raises:
            ValueError: If it is that of another optimizer.
        """
        if self._sharded is None:
            SingleDeviceStrategy.load_optim_state_dict(self, state_dict)
            return
        optimizer = self.optim_wrapper.optimizer
        groups = [[self._names[id(item)] for item in group['params']] for group in optimizer.param_groups]
        if [len(group['params']) for group in state_dict['param_groups']] != [len(group) for group in groups]:
            raise ValueError('The state has other parameter groups than the optimizer.')
        names = [name for group in groups for name in group]
        named = dict(
            state={names[number]: value for number, value in state_dict['state'].items()},
            param_groups=[{**saved, 'params': group} for saved, group in zip(state_dict['param_groups'], groups)],
        )
        # By keywords, since torch 2.1 has changed their order.
        own = Sharded.optim_state_dict_to_load(model=self._root, optim=optimizer, optim_state_dict=named)
        settings = {_SETTINGS: state_dict[_SETTINGS]} if _SETTINGS in state_dict else {}
        self.optim_wrapper.load_state_dict({**own, **settings})

    def load_model_state_dict(self, state_dict: dict, *, strict: bool = False, **options: Any) -> None:
        """Load a student, each process its part; what has another shape is left out, as in any other run."""
        if self._sharded is None:
            SingleDeviceStrategy.load_model_state_dict(self, state_dict, strict=strict, **options)
            return
        plain = {without_prefix(key, 'module.'): value for key, value in state_dict.items()}
        other = [key for key in plain if key in self._shapes and plain[key].shape != self._shapes[key]]
        found = self._root.load_state_dict({key: plain[key] for key in plain if key not in other}, strict=strict)
        for what, keys in (
            ('lacks', [key for key in found.missing_keys if key not in other]),
            ('has in another shape', other),
            ('has beside the student', found.unexpected_keys),
        ):
            if keys:
                print_log(f'The checkpoint {what}: {", ".join(keys)}', logger='current', level=logging.WARNING)
