"""Start a script in two processes, as torch's launcher does, and end one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Union


def run_in_two(script: str, *arguments: Union[str, Path], timeout: float = 300) -> None:
    """Run a script of this folder in two processes, and fail with its words where one of them does.

    Args:
        script: Name of a file beside this one.
        *arguments: Of the script.
        timeout: In seconds.
    """
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    result = subprocess.run(
        [*launcher, str(Path(__file__).with_name(script)), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def leave() -> None:
    """End a process whose results are written, without the shutdown of the interpreter.

    A thread of gloo that still lets go of a tensor then asks for a lock that is gone, and aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
