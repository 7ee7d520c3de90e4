"""The strategy that trains a student with DeepSpeed, its optimizer's state spread over processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine._strategy import DeepSpeedStrategy, SingleDeviceStrategy
from mmengine.device import get_device
from mmengine.dist import all_reduce, is_main_process
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn

from mmkd_plugin.engine.strategies import OfStudent
from mmkd_plugin.errors import DistillError

_HALF = ('fp16', 'bf16', 'amp')


def require_deepspeed() -> type[WithDeepSpeed]:
    """The strategy, where DeepSpeed is there.

    Raises:
        DistillError: If it is not, or does not fit MMEngine.
    """
    try:
        import deepspeed  # noqa: F401
        import deepspeed.runtime.fp16.onebit  # noqa: F401
    except ImportError as error:
        raise DistillError(
            f'DeepSpeedStrategy needs DeepSpeed as MMEngine knows it ({error}); run pip install "deepspeed<0.17", or '
            'take FSDPStrategy.'
        ) from error
    return WithDeepSpeed


class WithDeepSpeed(OfStudent, DeepSpeedStrategy, SingleDeviceStrategy):
    """MMEngine's ``DeepSpeedStrategy`` for a student with its teacher, in ZeRO's stages 0, 1 and 2.

    The optimizer's config is that of any other run: clipping and accumulation are handed to DeepSpeed. The teacher is
    no part of what DeepSpeed wraps. Checkpoints are those of any other run, with the whole state of the optimizer, so
    that they are read by any number of processes; DeepSpeed itself would write a folder for each.
    """

    shards = ''

    def __init__(self, **options: Any) -> None:
        # MMEngine registers DeepSpeed's optimizers at each start, which its registry refuses the second time.
        for name, module in list(OPTIMIZERS.module_dict.items()):
            if module.__module__.startswith('deepspeed.'):
                OPTIMIZERS.module_dict.pop(name)
        super().__init__(**options)
        half = next((key for key in _HALF if (self.config.get(key) or {}).get('enabled')), None)
        stage = (self.config.get('zero_optimization') or {}).get('stage', 0)
        if half is not None or stage > 2:
            what = f'strategy.{half}' if half is not None else f'strategy.zero_optimization.stage={stage}'
            raise DistillError(
                f'{what} was never tried with a distilled run; take stage 2 in single precision, or FSDPStrategy.'
            )
        self.config.setdefault('zero_allow_untested_optimizer', True)
        self._trains = False
        self._parameters: list[list[nn.Parameter]] = []
        self._state: dict = {}

    def _setup_distributed(self, launcher: str | None = None, backend: str = 'nccl', **options: Any) -> None:
        if get_device() != 'cpu':
            super()._setup_distributed(launcher, backend, **options)
            return
        import deepspeed

        deepspeed.init_distributed(dist_backend='gloo')

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """Build the optimizer; what its wrapper would do is left to DeepSpeed."""
        if isinstance(optim_wrapper, dict):
            optim_wrapper = self._of_deepspeed(dict(optim_wrapper))
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        self._trains = True
        self._parameters = [list(group['params']) for group in wrapper.optimizer.param_groups]
        return wrapper

    def _of_deepspeed(self, config: dict) -> dict:
        """The config of MMEngine's wrapper for DeepSpeed, which takes neither clipping nor accumulation."""
        kind = config.get('type', 'OptimWrapper')
        name = kind.split('.')[-1] if isinstance(kind, str) else kind.__name__
        clip = dict(config.pop('clip_grad', None) or {})
        if name not in ('OptimWrapper', 'DeepSpeedOptimWrapper') or clip.pop('type', 'norm') != 'norm':
            raise DistillError(
                f'DeepSpeed takes the place of {name} and clips by the norm alone; set '
                "optim_wrapper.type='OptimWrapper' and clip_grad=dict(max_norm=...)."
            )
        if clip:
            self.config['gradient_clipping'] = float(clip['max_norm'])
        self.config['gradient_accumulation_steps'] = int(config.pop('accumulative_counts', 1))
        return {**config, 'type': 'DeepSpeedOptimWrapper'}

    def _wrap_model(self, model: nn.Module) -> Any:
        """Hand what is trained to DeepSpeed; what is tested is whole in each process."""
        return DeepSpeedStrategy._wrap_model(self, model) if self._trains else model.to(get_device())

    def save_checkpoint(self, filename: str, **options: Any) -> None:
        """Save one file; all processes call it, and the first one writes."""
        self._state = self._whole_state() if options.get('save_optimizer', True) else {}
        if is_main_process():
            SingleDeviceStrategy.save_checkpoint(self, filename, **options)

    def load_checkpoint(self, filename: str, **options: Any) -> dict:
        """Load such a file."""
        checkpoint = SingleDeviceStrategy.load_checkpoint(self, filename, **options)
        if self._trains and hasattr(self.optim_wrapper.optimizer, 'refresh_fp32_params'):
            # ZeRO trains copies of the weights.
            self.optim_wrapper.optimizer.refresh_fp32_params()
        return checkpoint

    def resume(self, filename: str, **options: Any) -> dict:
        """Resume from such a file."""
        return SingleDeviceStrategy.resume(self, filename, **options)

    def optim_state_dict(self) -> dict:
        """The whole state of the optimizer, gathered before."""
        return self._state

    def _whole_state(self) -> dict:
        """The state of the optimizer by numbers, as torch's optimizers write it, gathered from all processes."""
        zero = self.optim_wrapper.optimizer
        if not hasattr(zero, 'single_partition_of_fp32_groups'):
            return zero.state_dict()
        inner = zero.optimizer
        numbers = {id(item): number for number, item in enumerate(sum(self._parameters, []))}
        state: dict[int, dict] = {}
        for own, parameters in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups):
            for key, value in inner.state[own].items():
                for parameter in parameters:
                    entry = state.setdefault(numbers[id(parameter)], {})
                    entry[key] = _gathered(parameter, value) if _spread(value, own) else value
        groups = [
            {**group, 'params': [numbers[id(item)] for item in parameters]}
            for group, parameters in zip(inner.param_groups, self._parameters)
        ]
        return dict(state=state, param_groups=groups)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load such a state, each process its part.

        Raises:
            ValueError: If it is that of another optimizer.
        """
        zero = self.optim_wrapper.optimizer
        if not hasattr(zero, 'single_partition_of_fp32_groups'):
            zero.load_state_dict(state_dict)
            return
        saved = state_dict['param_groups']
        if [len(group['params']) for group in saved] != [len(group) for group in self._parameters]:
            raise ValueError('The state has other parameter groups than the optimizer.')
        numbers = {id(item): number for number, item in enumerate(sum(self._parameters, []))}
        inner = zero.optimizer
        for group, kept in zip(inner.param_groups, saved):
            group.update({key: value for key, value in kept.items() if key != 'params'})
        for own, parameters in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups):
            for parameter in parameters:
                for key, value in state_dict['state'].get(numbers[id(parameter)], {}).items():
                    if not isinstance(value, Tensor) or value.shape != parameter.shape:
                        inner.state[own][key] = value
                        continue
                    part = inner.state[own].setdefault(key, torch.zeros_like(own))
                    for here, there in _places(parameter):
                        part[here] = value.flatten()[there].to(part)


def _spread(value: Any, own: Tensor) -> bool:
    """Whether an entry of the state has a number for each weight."""
    return isinstance(value, Tensor) and value.shape == own.shape


def _places(parameter: Any) -> Iterator[tuple[slice, slice]]:
    """Where a parameter's part lies in this process's share of its group, and in the parameter; nothing for none."""
    mapping = parameter._hp_mapping
    if mapping is not None:
        here, there = mapping.get_hp_fragment_address(), mapping.lp_fragment_address
        yield slice(here.start, here.start + here.numel), slice(there.start, there.start + there.numel)


def _gathered(parameter: Tensor, share: Tensor) -> Tensor:
    """What all processes together hold for a parameter."""
    whole = share.new_zeros(parameter.numel())
    for here, there in _places(parameter):
        whole[there] = share[here]
    all_reduce(whole)
    return whole.view_as(parameter)
