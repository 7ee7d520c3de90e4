"""MMEngine's checkpoint hook in another order: a checkpoint is removed once the one that replaces it is whole."""

from __future__ import annotations

import hashlib
import os.path as osp
import pickle
from collections.abc import Iterable
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner, save_checkpoint

from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.engine.latest import LAST
from mmkd_plugin.registry import HOOKS
from mmkd_plugin.utilities.files import whole_file

REPLACED = 'replaced_ckpts'
"""Where a checkpoint's message hub names the files that it replaces, for a run that was killed before removing them."""


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` whose last and best checkpoints are whole at any moment; it takes the same settings.

    Its runner is a :class:`SafeRunner`, which writes the files and puts this hook in the place of MMEngine's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._earlier: dict[str, str | None] = {}

    def before_train(self, runner: Runner) -> None:
        """Get ready; what the checkpoint that the run goes on from has replaced is removed."""
        super().before_train(runner)
        if not is_local(self.file_backend):
            return
        for key, path in self._best().items():
            if path and osp.dirname(path) != self.out_dir:
                # The folder was moved or copied, and another run's best checkpoint is not ours to remove.
                self._set_best(key, osp.join(self.out_dir, osp.basename(path)))
                runner.message_hub.update_info(f'best_ckpt_{key}' if key else 'best_ckpt', self._best()[key])
        if runner._resume and runner._load_from is None:
            self._remove(runner, [self._path(name) for name in runner.message_hub.runtime_info.get(REPLACED, [])])

    def _best(self) -> dict[str, str | None]:
        """Paths of the best checkpoints by metric; the only one has no name."""
        if not self.save_best:
            return {}
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best(self, key: str, path: str | None) -> None:
        if key:
            self.best_ckpt_path_dict[key] = path
        else:
            self.best_ckpt_path = path

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Save what is better than before; MMEngine, which would remove the old one first, is not told of it."""
        self._earlier = self._best()
        for key in self._earlier:
            self._set_best(key, None)
        super()._save_best_checkpoint(runner, metrics)
        replaced = self._replaced_best()
        for key, path in self._earlier.items():
            if self._best()[key] is None:
                self._set_best(key, path)
        self._earlier = {}
        self._remove(runner, replaced)

    def _replaced_best(self) -> list[str]:
        """Best checkpoints that have a better one by now."""
        now = self._best()
        return [path for key, path in self._earlier.items() if path and now[key] not in (None, path)]

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save, point ``last_checkpoint`` at the new file, and only then remove what is not kept any more."""
        replaced = self._replaced_best()
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                replaced.append(self._path(self.filename_tmpl.format(self.keep_ckpt_ids.popleft())))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self._path(filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.message_hub.update_info(REPLACED, [osp.basename(path) for path in replaced])
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            with whole_file(osp.join(runner.work_dir, LAST)) as temporary, open(temporary, 'w') as opened:
                opened.write(str(self.last_ckpt))
        self._remove(runner, replaced)

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Write the published keys of a checkpoint into a file of their own."""
        if not is_local(self.file_backend):
            super()._publish_model(runner, ckpt_path)
            return
        if not osp.isfile(ckpt_path):
            runner.logger.warning(f'"{ckpt_path}" is not published, since it is gone.')
            return
        assert self.published_keys is not None
        checkpoint = load_checkpoint_file(ckpt_path)
        removed = [key for key in checkpoint if key not in self.published_keys]
        checkpoint = {key: value for key, value in checkpoint.items() if key in self.published_keys}
        digest = hashlib.sha256(pickle.dumps(checkpoint)).hexdigest()
        path = f'{osp.splitext(ckpt_path)[0]}-{digest[:8]}.pth'
        with whole_file(path) as temporary:
            save_checkpoint(checkpoint, temporary)
        runner.logger.info(f'The checkpoint ({ckpt_path}) is published to {path}, without {removed}.')

    def _path(self, filename: str) -> str:
        return self.file_backend.join_path(self.out_dir, filename)

    @master_only
    def _remove(self, runner: Runner, paths: Iterable[str]) -> None:
        for path in paths:
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
                runner.logger.debug(f'"{path}" is removed; a newer or better checkpoint is in its place.')


def is_local(backend: Any) -> bool:
    """Whether one of MMEngine's file backends, or the client around it, writes to a disk of this machine."""
    return isinstance(getattr(backend, 'client', backend), LocalBackend)


def with_whole_files(hook: Any) -> Any:
    """Our hook in the place of MMEngine's own; subclasses of it, and every other hook, stay what they are.

    Args:
        hook: What a runner is asked to register, a hook or its config.

    Returns:
        The hook or config to register.
    """
    if not isinstance(hook, dict):
        return hook
    kind = hook.get('type')
    if isinstance(kind, str) and kind.split('.')[-1] == CheckpointHook.__name__:
        kind = ROOT_HOOKS.get(kind)
    return {**hook, 'type': WholeCheckpointHook} if kind is CheckpointHook else hook
