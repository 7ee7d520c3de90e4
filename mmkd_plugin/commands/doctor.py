"""``mmkd doctor``; it must answer also where nothing else of the plugin can be imported."""

from __future__ import annotations

from collections.abc import Sequence

from mmkd_plugin.cli import command_parser
from mmkd_plugin.compat import doctor


def main(arguments: Sequence[str]) -> int:
    """Print the report; the status is 1 where something will not work."""
    parser = command_parser(
        'doctor',
        'Print what is installed, what is tested, and one line with its fix for each thing that will not work.\n'
        'The exit status is 1 where there is such a thing.',
        'mmkd doctor',
    )
    parser.parse_args(arguments)
    return doctor.main()
