"""The command ``mmkd``, which ``python -m mmkd_plugin`` is too."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from mmkd_plugin.cli import plain_errors
from mmkd_plugin.errors import DistillError
from mmkd_plugin.version import __version__

COMMANDS = {
    'doctor': 'what is installed, what is tested, and what will not work',
    'print-config': 'the MMRazor config that a distill block stands for',
    'check': 'whether a config trains: its first steps, their time and memory, and how long it will take',
    'layers': 'what can be tapped in student and teacher, side by side',
    'compress': 'a trained model with its convolutions factored, as a student',
    'benchmark': 'what distillation costs: a step alone, at the floor, ours, and of MMRazor, in turns',
    'report': 'runs as one page: curves of every term and metric, self-check, pictures, costs, config',
    'visualize': 'what a method compares, as a picture',
    'check-recipes': 'whether recipes work: a step of each, with models of full size and a random teacher',
    'calibrate': 'how strongly each method pulls at the student, and the weight for a given share',
    'export': 'a checkpoint of any layout as a plain student, verified in the stock model',
    'cache': "the teacher's records of all training images, kept on the disk instead of computed in each epoch",
    'replay': 'the step at which a run stopped because something was not finite',
}
"""The commands with their line in the help; each is a module of :mod:`mmkd_plugin.commands`, imported when called."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: What was typed behind ``mmkd``; by default that of this process.

    Returns:
        The exit status of the command.

    Raises:
        SystemExit: Of status 2 for a mistake of the user, of status 0 behind ``--help``.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    # The first word alone: what follows belongs to the command.
    name = _parser().parse_args(typed[:1]).command
    with plain_errors(typed):
        try:
            command = importlib.import_module(f'mmkd_plugin.commands.{name.replace("-", "_")}')
            return command.main(typed[1:])
        except ImportError as error:
            if (error.name or '').startswith('mmkd_plugin'):
                raise
            reason = str(error).splitlines()[0].rstrip('.')
            raise DistillError(
                f'A package cannot be imported ({reason}); "mmkd doctor" names what to install.'
            ) from error


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    lines = '\n'.join(f'  {name:{width}}{line}' for name, line in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='mmkd',
        usage='mmkd [-h] [--version] COMMAND ...',
        description='Knowledge distillation for MMDetection and MMSegmentation.',
        epilog=f'commands:\n{lines}\n\n"mmkd COMMAND --help" tells the options of a command and shows an example.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=__version__)
    parser.add_argument('command', choices=list(COMMANDS), metavar='COMMAND', help='one of those below')
    return parser


if __name__ == '__main__':
    sys.exit(main())
