"""One of two processes that train in the folder of an earlier run; run by torch's launcher."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

if __name__ == '__main__':
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from _helpers.small_runs import small_runner
    from _helpers.two_processes import leave
    from mmkd_plugin.errors import DistillError

    dist.init_process_group('gloo')
    try:
        small_runner(folder / 'run').train()
    except DistillError as error:
        (folder / f'rank{dist.get_rank()}').write_text(str(error))
    leave()
