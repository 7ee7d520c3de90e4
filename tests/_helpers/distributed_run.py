"""Run by two processes: train a distilled student for a few steps and save what each rank ends with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

from _helpers.tiny import block, build, run_config  # noqa: E402

if __name__ == '__main__':
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    cfg = run_config(folder / 'run', iterations=3, distill=block(), launcher='pytorch')
    cfg.env_cfg = dict(dist_cfg=dict(backend='gloo'))
    runner = build(cfg)
    runner.train()
    state = {key: value for key, value in runner.model.module.named_parameters()}
    torch.save({key: value.detach() for key, value in state.items()}, folder / f'rank{dist.get_rank()}.pth')
