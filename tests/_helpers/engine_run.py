"""Run by two processes: distilled runs under several strategies, one after the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

from mmengine.config import Config  # noqa: E402
from mmengine.model import is_model_wrapper  # noqa: E402
from mmengine.registry import FUNCTIONS  # noqa: E402
from torch import nn  # noqa: E402

from _helpers import tiny, tiny_seg  # noqa: E402
from _helpers.two_processes import leave  # noqa: E402
from mmkd_plugin.errors import DistillError  # noqa: E402

ORDER = (0, 1, 2, 3, 4, 5, 7, 6)
"""Images of which both processes get as many positives in each step; RetinaNet divides by those of its own process."""
STEPS = 2


@FUNCTIONS.register_module(force=True)
def blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """Shard each block of a ResNet on its own."""
    return recurse or type(module).__name__ == 'BasicBlock'


def config(folder: Path | str, ranks: int, **changes: Any) -> Config:
    """A run whose steps see the same images, however many processes share them; batch norm does not move."""
    methods = changes.pop('methods', None) or dict(fgd=dict(type='FGD'))
    options = changes.pop('model', {})
    if changes.pop('seg', False):
        cfg = tiny_seg.run_config(folder, STEPS, distill=tiny_seg.block(methods['seg']))
    else:
        model = tiny.retinanet(pad_size_divisor=64)
        model['backbone'].update(norm_eval=True, **options)
        cfg = tiny.run_config(folder, STEPS, model=model, distill=tiny.block(methods=methods))
        cfg.train_dataloader.dataset.order = ORDER
    cfg.train_dataloader.sampler.shuffle = False
    cfg.train_dataloader.batch_size = 4 // ranks
    cfg.optim_wrapper.clip_grad = dict(max_norm=0.5)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=4)]
    cfg.default_hooks.checkpoint.interval = 1
    cfg.runner_type = 'mmkd_plugin.FlexibleDistillRunner'
    cfg.merge_from_dict({'launcher': 'pytorch' if ranks > 1 else 'none', **changes})
    return cfg


def outcome(cfg: Config) -> dict[str, Any]:
    """Train, and give the student, what is trained beside it, and the losses of this process; or the sentence."""
    try:
        runner = tiny.build(cfg)
        runner.train()
    except DistillError as error:
        return dict(sentence=str(error))
    algorithm: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
    held = sum(item.numel() for item in algorithm.student.parameters())
    states = [getattr(runner.optim_wrapper.optimizer, 'optimizer', runner.optim_wrapper.optimizer)]
    return dict(
        student=dict(algorithm.state_dict()),
        beside=dict(algorithm.extra_state()),
        loss=tiny.losses_of(runner, 'loss'),
        held=held,
        optimizer=sum(
            value.numel()
            for inner in states
            for entry in inner.state.values()
            for value in entry.values()
            if isinstance(value, torch.Tensor)
        ),
    )


if __name__ == '__main__':
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for name, changes in json.loads(Path(sys.argv[2]).read_text()).items():
        found = outcome(config(folder / name, 2, **changes))
        torch.save(found, folder / f'{name}_{dist.get_rank()}.pth')
    leave()
