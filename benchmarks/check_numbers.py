"""Check that the shipped COCO-mini pairs still train to the committed numbers; fails where a value moved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

from benchmarks.catalogue import CONFIGS, MEASURED
from benchmarks.references import run
from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.datasets import ensure_coco_mini
from mmkd_plugin.errors import DistillError, nearest


def chosen(names: Sequence[str], references: Path) -> dict[str, str]:
    """The configs that are trained.

    Args:
        names: Those of COCO-mini's configs; where none is given, all that have references.
        references: The committed JSON file.

    Returns:
        The configs by name.

    Raises:
        DistillError: If there is no such config, or nothing is named at all.
    """
    known = {path.stem: str(path) for path in sorted((CONFIGS / MEASURED).glob('*.py'))}
    if not names and references.exists():
        names = list(json.loads(references.read_text())['pairs'])
    if not names:
        raise DistillError(f'There are no references in "{references}"; make some with --update --pairs <names>.')
    for name in names:
        if name not in known:
            raise DistillError(f'"{name}" is no config of configs/{MEASURED}: {nearest(name, known)}')
    return {name: known[name] for name in names}


def main() -> None:
    """Compare, or rewrite the references."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--update', action='store_true', help='rewrite the references after a deliberate change')
    parser.add_argument(
        '--pairs', nargs='+', default=[], help='configs of configs/coco_mini; all that have references by default'
    )
    parser.add_argument('--iterations', type=int, default=30, help='how long each pair trains')
    parser.add_argument('--references', type=Path, default=Path('benchmarks/references.json'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/check_numbers'))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='overrides for every pair')
    parser.add_argument(
        '--first-step', action='store_true', help='only the first step, without dropout: the same on every torch'
    )
    args = parser.parse_args()
    with plain_errors():
        ensure_coco_mini('data/coco_mini')
        same = run(
            chosen(args.pairs, args.references),
            args.references,
            args.iterations,
            args.work_dir,
            args.update,
            wide_console(),
            options=args.cfg_options,
            first_only=args.first_step,
        )
    raise SystemExit(0 if same else 1)


if __name__ == '__main__':
    main()
