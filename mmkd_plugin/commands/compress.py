"""``mmkd compress``."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmkd_plugin.cli import CommandParser, add_config_options, command_parser, read_config, wide_console
from mmkd_plugin.errors import DistillError

if TYPE_CHECKING:
    from mmkd_plugin.models.factored import Ranks
    from mmkd_plugin.study.compress import Compressed

_FORM = (
    '--ranks takes "vbmf", a share of the channels between 0 and 1, and PATH=IN,OUT for a single convolution or '
    'PATH=RANK for a fully-connected layer'
)


def main(arguments: Sequence[str]) -> int:
    """Factor a trained model, write it and print what became smaller."""
    args = _parser().parse_args(arguments)
    rule, own = read_ranks(args.ranks)

    from mmkd_plugin.study.compress import compress
    from mmkd_plugin.study.factored_config import write
    from mmkd_plugin.study.factors import require_tensorly

    require_tensorly()
    cfg = read_config(args)
    name = osp.splitext(osp.basename(args.config))[0]
    done = compress(cfg, args.checkpoint, rule, own, args.include, args.exclude, args.size and tuple(args.size))
    files = write(done.config, done.model, Path(args.out_dir), f'{name}_tucker', args.checkpoint)
    _print(done)
    print(f'Config: {files[0]}\nWeights: {files[1]}, from which the config starts to train.')
    return 0


def read_ranks(texts: Sequence[str]) -> tuple[str | float | None, dict[str, Ranks]]:
    """Read ``--ranks``.

    Args:
        texts: As typed.

    Returns:
        The rule for all layers, None where single ones are named alone; and the ranks of the single ones.

    Raises:
        DistillError: If a text is neither.
    """
    rule: str | float | None = None
    own: dict[str, Ranks] = {}
    for text in texts:
        path, separator, value = text.partition('=')
        if separator:
            numbers = [_number(text, item) for item in value.split(',')]
            if len(numbers) > 2 or not path:
                raise DistillError(f'{_FORM}, but "{text}" is none of them; write for instance backbone.conv1=8,16.')
            own[path] = _single(text, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
        elif rule is not None:
            raise DistillError(f'--ranks has two rules for all layers, {rule} and {text}; give one of them.')
        else:
            rule = text if text == 'vbmf' else _share(text)
    return rule, own


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise DistillError(f'{_FORM}, but "{text}" is none of them; write for instance --ranks 0.5.')
    return share


def _number(text: str, item: str) -> int | None:
    if item in ('', 'None'):
        return None
    if not item.isdigit() or int(item) < 1:
        raise DistillError(f'{_FORM}, but "{text}" is none of them; write for instance backbone.conv1=8,16.')
    return int(item)


def _single(text: str, number: int | None) -> int:
    if number is None:
        raise DistillError(f'{_FORM}, but "{text}" names no rank; write for instance backbone.conv1=8,16.')
    return number


def _print(done: Compressed) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = wide_console()
    table = Table('layer', 'form', 'channels', 'ranks', 'error', 'parameters', 'after')
    for layer in done.layers:
        table.add_row(
            escape(layer.name),
            layer.form,
            ' to '.join(map(str, layer.channels)),
            str(layer.ranks) if isinstance(layer.ranks, int) else ', '.join(str(rank or '-') for rank in layer.ranks),
            f'{100 * layer.error:.1f} %',
            f'{layer.before:,}',
            f'{layer.after:,}',
        )
    console.print(table)
    for reason in dict.fromkeys(done.left.values()):
        names = [name for name, why in done.left.items() if why == reason]
        console.print(f'Left as it is, {reason}: {", ".join(names)}.', markup=False, highlight=False)
    height, width = done.image
    print(f'Parameters: {_change(done.before.parameters, done.after.parameters)}')
    print(f'FLOPs on an image of {width} x {height}: {_change(done.before.flops, done.after.flops)}')


def _change(before: int | None, after: int | None) -> str:
    from mmkd_plugin.study.layer_tables import human

    if not before or not after:
        return 'not known, since the model cannot be traced.'
    return f'{human(before)} before, {human(after)} after ({100 * after / before:.1f} %).'


def _parser() -> CommandParser:
    parser = command_parser(
        'compress',
        'Factor the convolutions of a trained model (Tucker-2, Kim et al., ICLR 2016) and write the smaller one: its\n'
        'config, and weights that the config starts from. It is trained further, best as the student of a distill\n'
        'block. Convolutions of 1 x 1, grouped and deformable ones are left, and so is what would not be smaller.\n'
        'Needs the package tensorly.',
        'mmkd compress mmkd_plugin::coco_mini/retina_r34.py mmkd_plugin::coco_mini/retina_r34.pth work_dirs/tucker '
        '--ranks 0.5',
    )
    parser.add_argument('config', help='config of the model: a file, or a zoo name')
    parser.add_argument('checkpoint', help='its weights: path, address or zoo name')
    parser.add_argument('out_dir', help='folder for the config and the weights')
    parser.add_argument(
        '--ranks',
        nargs='+',
        default=['vbmf'],
        metavar='RANK',
        help='vbmf (by variational Bayes, the default), or the share of the channels that remains, such as 0.5; '
        'beside or instead of it PATH=IN,OUT for a single convolution, or PATH=RANK for a fully-connected layer',
    )
    parser.add_argument(
        '--include',
        nargs='+',
        default=[],
        metavar='PATTERN',
        help='paths of the layers to factor, fully-connected ones too (truncated SVD), such as "backbone.*" '
        '"roi_head.bbox_head.shared_fcs.*"; the convolutions of the backbone by default',
    )
    parser.add_argument('--exclude', nargs='+', default=[], metavar='PATTERN', help='paths of layers to leave')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='image that FLOPs are counted on; what the test pipeline resizes to by default',
    )
    add_config_options(parser)
    return parser
