"""MMEngine's runners, made so that nothing a run has saved gets lost."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import FileClient, get_file_backend
from mmengine.hooks import Hook
from mmengine.runner import FlexibleRunner, Runner

from mmkd_plugin.engine.checkpoint_hook import is_local, with_whole_files
from mmkd_plugin.engine.full_disk import full_disk
from mmkd_plugin.engine.latest import newest_whole
from mmkd_plugin.engine.work_folder import checkpoint_folders, checkpoint_templates, make_folder
from mmkd_plugin.utilities.files import UNFINISHED, whole_file

if TYPE_CHECKING:
    from mmengine.runner import Runner as _Base
else:
    _Base = object


class _Safe(_Base):
    """Stands before one of MMEngine's runners."""

    _has_loaded: bool
    _resume: Any
    _load_from: Any

    def __init__(self, model: Any, work_dir: str, *args: Any, **kwargs: Any) -> None:
        make_folder(work_dir)
        with full_disk(work_dir):
            super().__init__(model, *args, work_dir=work_dir, **kwargs)

    def register_hook(self, hook: Hook | dict, priority: Any = None) -> None:
        """Register a hook; in the place of MMEngine's own ``CheckpointHook`` comes ours."""
        super().register_hook(with_whole_files(hook), priority)

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

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        *args: Any,
        backend_args: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Save a checkpoint so that it is whole or not there; all processes call it, and the first one writes.

        Other places than a disk take whole files alone.
        """
        kwargs.update(backend_args=backend_args)
        if not is_local(_backend(out_dir, file_client_args, backend_args)):
            super().save_checkpoint(out_dir, filename, file_client_args, *args, **kwargs)
        elif not is_main_process():
            super().save_checkpoint(out_dir, filename + UNFINISHED, file_client_args, *args, **kwargs)
        else:
            with full_disk(out_dir, self._bytes_to_save), whole_file(osp.join(out_dir, filename)):
                super().save_checkpoint(out_dir, filename + UNFINISHED, file_client_args, *args, **kwargs)

    def _bytes_to_save(self) -> int:
        """About what a checkpoint takes: the weights and the state of the optimizer."""
        return bytes_of(self.model.state_dict()) + bytes_of(self.optim_wrapper.state_dict())


class SafeRunner(_Safe, Runner):
    """Writes each checkpoint whole or not at all, and resumes from the newest that is whole."""


class SafeFlexibleRunner(_Safe, FlexibleRunner):
    """The same for MMEngine's runner with strategies, whose processes may have to save together."""

    _to_save = 0

    def _bytes_to_save(self) -> int:
        """What the hooks were told that it takes; the processes may not be able to gather it once more."""
        return self._to_save

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', **options: Any) -> dict:
        """Load a checkpoint.

        Returns:
            What it held; MMEngine's own returns nothing.
        """
        held: dict[str, Any] = {}

        def keep(checkpoint: dict) -> None:
            held.update(checkpoint)
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)

        self.strategy.load_checkpoint(filename, map_location=map_location, callback=keep, **options)
        return held

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks."""
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint':
            # Where the disk is full, the processes cannot be asked together any more.
            self._to_save = bytes_of(kwargs['checkpoint'])


def _backend(out_dir: str, file_client_args: dict | None, backend_args: dict | None) -> Any:
    """Where checkpoints go."""
    if file_client_args is None:
        return get_file_backend(out_dir, backend_args=backend_args)
    return FileClient.infer_client(file_client_args, out_dir)


def bytes_of(value: Any) -> int:
    """Bytes of all tensors in a nest of dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return 0
    items: Iterable[Any] = value
    return sum(map(bytes_of, items))
