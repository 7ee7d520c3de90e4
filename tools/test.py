"""Test a checkpoint; neither the teacher nor its weights are needed."""

from __future__ import annotations

import argparse
import os.path as osp
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmkd_plugin.cli import (
    CommandParser,
    add_common_arguments,
    build_runner,
    leave_group,
    plain_errors,
    read_config,
)
from mmkd_plugin.errors import DistillError

if TYPE_CHECKING:
    from mmengine.config import Config

# Hook and visualizer of a config that names none, by its default scope.
_DRAWN_BY = {
    'mmdet': ('DetVisualizationHook', 'DetLocalVisualizer'),
    'mmseg': ('SegVisualizationHook', 'SegLocalVisualizer'),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config the checkpoint was trained with, or the stock config of the student')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--show-dir', help='folder for the images with their detections or label maps, from where you are'
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def draw_into(cfg: Config, folder: str) -> None:
    """Let a test draw every image with its predictions.

    Args:
        cfg: The config, which is changed.
        folder: Where the images go: those of detectors directly, those of segmentors, which are drawn through the
            visualizer, to ``vis_data/vis_image`` below it.

    Raises:
        DistillError: If the config neither names a hook that draws nor tells which one fits.
    """
    hooks, visualizer = dict(cfg.get('default_hooks') or {}), dict(cfg.get('visualizer') or {})
    hook = dict(hooks.get('visualization') or {})
    hook_type, visualizer_type = _DRAWN_BY.get(cfg.get('default_scope'), ('', ''))
    if not hook.setdefault('type', hook_type) or not visualizer.setdefault('type', visualizer_type):
        raise DistillError(
            '--show-dir needs a hook and a visualizer that draw the predictions, which the config lacks; set '
            'default_hooks.visualization and visualizer.'
        )
    hook['draw'] = True
    # MMDetection's hook joins a relative path with the work folder.
    folder = osp.abspath(folder)
    if 'SegVisualizationHook' in str(hook['type']):
        hook['interval'] = 1
        visualizer['save_dir'] = folder
        backends = visualizer.get('vis_backends') or []
        visualizer['vis_backends'] = list(backends) if isinstance(backends, (list, tuple)) else [backends]
        if not any('LocalVisBackend' in str(backend['type']) for backend in visualizer['vis_backends']):
            visualizer['vis_backends'].append(dict(type='LocalVisBackend'))
    else:
        hook['test_out_dir'] = folder
    cfg.default_hooks = {**hooks, 'visualization': hook}
    cfg.visualizer = visualizer


def main(argv: Sequence[str] | None = None) -> None:
    """Test.

    Args:
        argv: Arguments; those of the process if None.
    """
    with plain_errors(argv):
        args = parse_args(argv)
        cfg = read_config(args)
        cfg.load_from = args.checkpoint
        if args.show_dir:
            draw_into(cfg, args.show_dir)
        build_runner(cfg).test()
        leave_group()


if __name__ == '__main__':
    main()
