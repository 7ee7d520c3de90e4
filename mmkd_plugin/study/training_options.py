"""How many trainings share a machine, as options of a command; read before anything heavy is imported."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

INSTRUCTION_SETS: Mapping[str, Mapping[str, str]] = {
    'avx512': dict(ATEN_CPU_CAPABILITY='avx512', ONEDNN_MAX_CPU_ISA='AVX512_CORE'),
    'avx2': dict(ATEN_CPU_CAPABILITY='avx2', ONEDNN_MAX_CPU_ISA='AVX2'),
    'sse41': dict(ATEN_CPU_CAPABILITY='default', ONEDNN_MAX_CPU_ISA='SSE41'),
}
"""What restricts torch and oneDNN to the instructions of older processors.

The same training then adds the same numbers in other orders, as it does on another machine.
"""


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add how trainings share the machine, for commands that do many."""
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='trainings at a time; 1 by default')
    parser.add_argument(
        '--instruction-sets',
        nargs='+',
        default=[],
        metavar='SET',
        help='restrict the processor, in turns, so that the spread over seeds is also one over machines: '
        + ', '.join(INSTRUCTION_SETS),
    )
