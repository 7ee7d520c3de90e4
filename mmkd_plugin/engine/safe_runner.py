"""MMEngine's runner, made so that nothing a run has saved gets lost."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.fileio import FileClient, get_file_backend
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_plugin.engine.checkpoint_hook import is_local, with_whole_files
from mmkd_plugin.engine.full_disk import full_disk
from mmkd_plugin.engine.latest import newest_whole
from mmkd_plugin.engine.work_folder import checkpoint_folders, checkpoint_templates, make_folder
from mmkd_plugin.utilities.files import UNFINISHED, whole_file


class SafeRunner(Runner):
    """Writes each checkpoint whole or not at all, and resumes from the newest that is whole."""

    _has_loaded: bool

    def __init__(self, model: Any, work_dir: str, *args: Any, **kwargs: Any) -> None:
        make_folder(work_dir)
        with full_disk(work_dir):
            super().__init__(model, work_dir, *args, **kwargs)

    def register_hook(self, hook: Hook | dict, priority: Any = None) -> None:
        """Register a hook; in the place of MMEngine's own ``CheckpointHook`` comes ours."""
        super().register_hook(with_whole_files(hook), priority)

    @master_only
    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        *args: Any,
        backend_args: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Save a checkpoint so that it is whole or not there; other places than a disk take whole files alone."""
        if file_client_args is None:
            backend: Any = get_file_backend(out_dir, backend_args=backend_args)
        else:
            backend = FileClient.infer_client(file_client_args, out_dir)
        kwargs.update(backend_args=backend_args)
        if not is_local(backend):
            super().save_checkpoint(out_dir, filename, file_client_args, *args, **kwargs)
            return
        with full_disk(out_dir, self._bytes_to_save), whole_file(osp.join(out_dir, filename)):
            super().save_checkpoint(out_dir, filename + UNFINISHED, file_client_args, *args, **kwargs)

    def load_or_resume(self) -> None:
        """Load or resume; where no checkpoint is named, from the newest that is whole."""
        if self._has_loaded or not self._resume or self._load_from is not None:
            super().load_or_resume()
            return
        path = newest_whole(
            self.work_dir, checkpoint_folders(self), checkpoint_templates(self), report=self.logger.warning
        )
        if path is None:
            self.logger.info(f'"{self.work_dir}" holds no checkpoint to resume from, so the run starts anew.')
            return
        self.logger.info(f'Auto resumed from the latest checkpoint {path}.')
        self.resume(path)
        self._has_loaded = True

    def _bytes_to_save(self) -> int:
        """About what a checkpoint takes: the weights and the state of the optimizer."""
        return _bytes(self.model.state_dict()) + _bytes(self.optim_wrapper.state_dict())


def _bytes(value: Any) -> int:
    """Bytes of all tensors in a nest of dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return 0
    items: Iterable[Any] = value
    return sum(map(_bytes, items))
