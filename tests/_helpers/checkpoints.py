"""Checkpoints that hold all that MMEngine puts into one, and some that do what they should not."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset


class Gadget:
    """Pickles as a call, the way an attack does."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


class Numbers(Dataset):
    """Eight vectors and meta information of every kind that data sets carry."""

    metainfo = dict(
        classes=('cat', 'dog'),
        palette=[(255, 0, 0), (0, 255, 0)],
        sigmas=np.array([0.25, 0.5]),
        count=np.int64(7),
        label_map=ConfigDict(cat=dict(old=0, new=1)),
    )

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.full((3,), float(index)))


class Line(BaseModel):
    """A linear layer that learns to answer zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Any, mode: str = 'tensor') -> Any:
        out = self.layer(torch.stack(x) if isinstance(x, list) else x)
        return dict(loss=out.pow(2).mean()) if mode == 'loss' else out


def make_runner(work_dir: Path, iterations: int = 4, **options: Any) -> Runner:
    """A runner whose checkpoint holds all that MMEngine can put into one."""
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(dataset=Numbers(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[
            dict(type='OneCycleLR', eta_max=0.01, total_steps=iterations, by_epoch=False),
            dict(type='MultiStepLR', milestones=[2], by_epoch=False),
        ],
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False),
            logger=dict(type='LoggerHook', interval=1),
        ),
        default_scope='mmengine',
        log_level='ERROR',
        experiment_name=f'checkpoint_{work_dir.name}',
        **options,
    )


def save(content: Any, path: Path, **options: Any) -> str:
    """Save and give the path as users write it."""
    torch.save(content, path, **options)
    return str(path)


def save_pickle(content: bytes, path: Path, zip_format: bool = True) -> str:
    """Save a checkpoint whose object is a pickle written by hand."""
    if not zip_format:
        path.write_bytes(b''.join([*legacy_head(), content, pickle.dumps([], protocol=2)]))
        return str(path)
    empty = path.with_suffix('.empty')
    torch.save({}, empty)
    with zipfile.ZipFile(empty) as archive, zipfile.ZipFile(path, 'w') as copy:
        for name in archive.namelist():
            copy.writestr(name, content if name.endswith('data.pkl') else archive.read(name))
    return str(path)


def legacy_head() -> list[bytes]:
    """The three pickles before the object in a file of the old format: magic number, version, system."""
    parts = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, dict(little_endian=True))
    return [pickle.dumps(part, protocol=2) for part in parts]
