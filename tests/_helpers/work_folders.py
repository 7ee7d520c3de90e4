"""Work folders as trainings leave them, written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIG = dict(
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=100, val_interval=20),
    default_hooks=dict(logger=dict(type='LoggerHook', interval=10)),
)


def training(step: int, **values: Any) -> dict[str, Any]:
    """A line of the training."""
    return dict(lr=0.01, data_time=0.125, time=0.5, **values, iter=step, step=step)


def validation(of_epoch: int = 0, **values: Any) -> dict[str, Any]:
    """A line of a validation; of runs by iteration MMEngine writes step 0."""
    return dict(**values, data_time=0.01, time=0.25, step=of_epoch)


def start(
    folder: Path,
    name: str,
    lines: Sequence[dict[str, Any] | str],
    config: dict[str, Any] | str | None = None,
    log: Sequence[str] = (),
) -> Path:
    """Write what one start of a run leaves.

    Args:
        folder: Work folder.
        name: Time of the start, as MMEngine names the folder.
        lines: Of ``scalars.json``; a text is written as it stands.
        config: Entries or text of ``config.py``, :data:`CONFIG` by default.
        log: Messages, each of which gets a time.

    Returns:
        The work folder.
    """
    data = folder / name / 'vis_data'
    data.mkdir(parents=True)
    text = '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (data / 'scalars.json').write_text(text + '\n', encoding='utf-8')
    if not isinstance(config, str):
        config = '\n'.join(f'{key} = {value!r}' for key, value in (CONFIG if config is None else config).items())
    (data / 'config.py').write_text(config, encoding='utf-8')
    messages = [f'2026/01/02 03:04:{index:02} - mmengine - INFO - {message}\n' for index, message in enumerate(log)]
    (folder / name / f'{name}.log').write_text(''.join(messages), encoding='utf-8')
    return folder
