"""Check that the shipped COCO-mini pairs still train to the committed numbers; fails where a value moved."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import DictAction

from benchmarks.references import run
from mmkd_plugin.cli import plain_errors, wide_console
from mmkd_plugin.datasets import ensure_coco_mini

PAIRS = {
    'retina_r18': 'configs/coco_mini/retina_r18.py',
    'fgd_retina_r34_to_r18': 'configs/coco_mini/fgd_retina_r34_to_r18.py',
    'fgd_retina_r34_to_r34': 'configs/coco_mini/fgd_retina_r34_to_r34.py',
    'fgi_retina_r34_to_r18': 'configs/coco_mini/fgi_retina_r34_to_r18.py',
    'chen_retina_r34_to_r18': 'configs/coco_mini/chen_retina_r34_to_r18.py',
    'chen_faster-rcnn_r34_to_r18': 'configs/coco_mini/chen_faster-rcnn_r34_to_r18.py',
    'pspnet_kd_pspnet_r34_to_r18': 'configs/coco_mini/pspnet_kd_pspnet_r34_to_r18.py',
    'pixel_pair_holistic_pspnet_r34_to_r18': 'configs/coco_mini/pixel_pair_holistic_pspnet_r34_to_r18.py',
    'pixel_pair_holistic_pspnet_r34_to_r34': 'configs/coco_mini/pixel_pair_holistic_pspnet_r34_to_r34.py',
}


def main() -> None:
    """Compare, or rewrite the references."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--update', action='store_true', help='rewrite the references after a deliberate change')
    parser.add_argument('--pairs', nargs='+', choices=list(PAIRS), default=list(PAIRS), help='all by default')
    parser.add_argument('--iterations', type=int, default=30, help='how long each pair trains')
    parser.add_argument('--references', type=Path, default=Path('benchmarks/references.json'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/regression'))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='overrides for every pair')
    args = parser.parse_args()
    with plain_errors():
        ensure_coco_mini('data/coco_mini')
        pairs = {name: PAIRS[name] for name in args.pairs}
        same = run(
            pairs,
            args.references,
            args.iterations,
            args.work_dir,
            args.update,
            wide_console(),
            options=args.cfg_options,
        )
    raise SystemExit(0 if same else 1)


if __name__ == '__main__':
    main()
