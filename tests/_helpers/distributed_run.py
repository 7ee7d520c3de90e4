"""Run by two processes: train a distilled student for a few steps and save what each rank ends with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

from mmengine.model import MMDistributedDataParallel  # noqa: E402
from mmengine.registry import MODEL_WRAPPERS  # noqa: E402

from _helpers import breaking, tiny, tiny_seg  # noqa: E402
from _helpers.two_processes import leave  # noqa: E402
from mmkd_plugin.errors import DistillError  # noqa: E402


@MODEL_WRAPPERS.register_module()
class HostDDP(MMDistributedDataParallel):
    """MMEngine's wrapper without the device that it always passes on; torch refuses one for a model on the CPU."""

    def __init__(self, module: torch.nn.Module, device_ids: list | None = None, **kwargs: object) -> None:
        super().__init__(module, **kwargs)


if __name__ == '__main__':
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ['holistic']:
        holistic = dict(type='Holistic', widths=[8, 8], optimizer=dict(type='SGD', lr=0.1))
        cfg = tiny_seg.run_config(folder / 'run', 3, distill=tiny_seg.block(holistic), launcher='pytorch')
    elif sys.argv[2:3] == ['breaking']:
        # At the second step of the second process, in a run that looks at once or without waiting.
        hooks = [dict(type='mmkd_plugin.FiniteHook', delayed=sys.argv[3] == 'delayed', interval=3)]
        cfg = breaking.broken_run(
            folder / 'run',
            'nan',
            2,
            level=1,
            rank=1,
            custom_hooks=hooks,
            launcher='pytorch',
            distill=dict(self_check=False),
        )
    elif sys.argv[2:3] == ['unlabelled']:
        from runs.test_unlabelled import run_config

        cfg = run_config(Path(sys.argv[3]), folder / 'run', iterations=5, batch_size=1)
        cfg.merge_from_dict(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo'))))
    elif sys.argv[2:3] == ['kept']:
        from _helpers.tiny_images import kept_config

        cfg = kept_config(Path(sys.argv[3]), folder / 'run')
        cfg.launcher = 'pytorch'
    elif sys.argv[2:] == ['auto']:
        methods = dict(fgd=dict(type='FGD', loss_weight='auto'), chen=dict(type='Chen', loss_weight='auto'))
        distill = tiny.block(methods=methods, share=0.5)
        cfg = tiny.run_config(folder / 'run', iterations=3, distill=distill, launcher='pytorch')
    else:
        schedule = dict(stop=int(sys.argv[2])) if len(sys.argv) > 2 else {}
        distill = tiny.block(methods=dict(fgd=dict(type='FGD', schedule=schedule)))
        cfg = tiny.run_config(folder / 'run', iterations=3, distill=distill, launcher='pytorch')
    cfg.model_wrapper_cfg = dict(type='HostDDP', broadcast_buffers=False, find_unused_parameters=False)
    # MMEngine's own start asks for a GPU, and is left out where a group exists.
    dist.init_process_group('gloo')
    runner = tiny.build(cfg)
    try:
        runner.train()
    except DistillError as error:
        torch.save(dict(sentence=str(error), steps=runner.iter), folder / f'rank{dist.get_rank()}.pth')
        leave()
    if sys.argv[2:3] == ['unlabelled']:
        from runs.test_unlabelled import seen

        names = [name for step in seen(runner) for name in step]
        (folder / f'seen{dist.get_rank()}.txt').write_text(' '.join(names))
    state = dict(runner.model.module.named_parameters())
    state.update({key: value for key, value in runner.model.module.named_buffers() if 'balance' in key})
    torch.save({key: value.detach() for key, value in state.items()}, folder / f'rank{dist.get_rank()}.pth')
    leave()
