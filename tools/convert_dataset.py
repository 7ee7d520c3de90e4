"""Write COCO files for KITTI or ILSVRC-DET, which MMDetection does not read; images stay where they are."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmkd_plugin.cli import plain_errors


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('dataset', choices=['kitti', 'ilsvrc-det'])
    parser.add_argument('root', type=Path, help='folder with training/ (KITTI), or the folder ILSVRC itself')
    parser.add_argument('--out', type=Path, help='folder of the files; <root>/annotations by default')
    parser.add_argument('--val-list', type=Path, help='KITTI: file with the names of the validation images')
    parser.add_argument('--names', type=Path, help='ILSVRC-DET: map_det.txt of the development kit')
    args = parser.parse_args()
    out = args.out or args.root / 'annotations'
    with plain_errors():
        from mmkd_plugin.datasets.to_coco import convert_ilsvrc_det, convert_kitti

        if args.dataset == 'kitti':
            listed = args.val_list.read_text().split() if args.val_list else None
            counts = convert_kitti(args.root, out, listed)
        else:
            counts = convert_ilsvrc_det(args.root, out, args.names)
    print(f'{counts["train"]} training and {counts["val"]} validation images: {out}')


if __name__ == '__main__':
    main()
