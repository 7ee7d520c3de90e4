"""The process that plays the user: it types one command and keeps what the screen showed."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.fuzz.case import CONFIG, ROOT

SCREEN, RESULT, BEFORE = 'screen.txt', 'result.json', 'before.py'
"""What the command printed; its exit status and whether the mistake had an effect; the config without the mistake."""


def play(folder: str, tool: str, arguments: list[str], gib: float) -> None:
    """Type a command in a folder; entry point of a process of its own.

    Args:
        folder: Of the case.
        tool: File below ``tools/``, or ``'mmkd'``.
        arguments: What is typed behind it.
        gib: Memory that it may take.
    """
    import torch

    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    os.chdir(folder)
    screen = os.open(SCREEN, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(screen, 1)
    os.dup2(screen, 2)
    torch.set_num_threads(1)
    for name in ('RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'LOCAL_RANK'):
        os.environ.pop(name, None)
    result: dict[str, Any] = dict(status=_status(tool, arguments))
    if result['status'] == 0 and Path(BEFORE).exists():
        result['same'] = _expanded(CONFIG) == _expanded(BEFORE)
    sys.stdout.flush()
    sys.stderr.flush()
    Path(RESULT).write_text(json.dumps(result))
    os._exit(0)


def _status(tool: str, arguments: list[str]) -> int:
    """The exit status that the command would have had."""
    sys.argv = [tool, *arguments]
    try:
        if tool == 'mmkd':
            from mmkd_plugin.__main__ import main

            return main(arguments)
        spec = importlib.util.spec_from_file_location('__tool__', ROOT / 'tools' / tool)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main() or 0
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1


def _expanded(path: str) -> str:
    """What the block of a config stands for."""
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    from mmkd_plugin.block import expand_config

    DefaultScope._instance_dict.clear()
    try:
        cfg = expand_config(Config.fromfile(path))
    except Exception as error:
        return f'not expanded: {error}'
    return str(cfg.model)
