"""The page that tells on which stacks the core check passes."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.stacks.steps import STEPS, Row
from mmkd_plugin.compat.stacks import DISTRIBUTIONS, Stack

COMMAND = 'make stacks'

NOTES = """
What a user of an older or another stack should know:

* A resumed run goes on with the data that an uninterrupted one would have seen where MMEngine advances its data loader:
  0.10.7 does, 0.10.0 and earlier and the forks begin the data anew.
* The plugin reads teachers, resumed checkpoints and pretrained weights safely on every torch. What the stock tools load
  themselves they read safely from torch 2.6 on; before, and in the forks after a first refusal, they unpickle all.
* Dropout draws other numbers on older torch, so the terms of the first step are compared without it; they agree within
  1e-3 everywhere. Later steps are compared on the default stack alone.
"""


def page(stacks: Mapping[str, Stack], rows: Mapping[str, Row]) -> str:
    """The page in Markdown.

    Args:
        stacks: All that are known.
        rows: What was found out, by stack; those without a row are told as not run.
    """
    return f"""# Stacks

What the plugin is tested on, from the oldest to the newest; written by `{COMMAND}`, one stack alone by
`{COMMAND} ONLY=<name>`. `make demo STACK=<name>` and `make test STACK=<name>` use it, and `mmkd doctor` tells which
one is nearest to an environment. The versions stand in [stacks.cfg](../mmkd_plugin/compat/stacks.cfg).

{_versions(stacks, rows)}
The core check, on a CPU. A cell gives the tests that passed, `ok` where a step is no test, and its seconds beside other
work on the machine; they tell what to expect, not what is faster.

{_checks(stacks, rows)}
{_reasons(stacks, rows)}{NOTES}"""


def _versions(stacks: Mapping[str, Stack], rows: Mapping[str, Row]) -> str:
    heads = ('stack', 'Python', 'torch', *DISTRIBUTIONS, 'numpy', 'what it is')
    lines = []
    for name, stack in stacks.items():
        found = rows[name] if name in rows else Row(name)
        versions = [found.versions.get('torch') or stack.version('torch')]
        for module in DISTRIBUTIONS:
            package = stack.distribution(module)
            version = found.versions.get(package) or stack.version(package)
            versions.append(version if package in DISTRIBUTIONS[module][:1] else f'{package} {version}')
        lines.append((name, found.python or stack.python, *versions, found.versions.get('numpy', '-'), stack.about))
    return _table(heads, lines)


def _checks(stacks: Mapping[str, Stack], rows: Mapping[str, Row]) -> str:
    heads = ('stack', 'core check', *(step.name for step in STEPS), 'seconds', 'GB')
    lines = []
    for name in stacks:
        row = rows.get(name)
        if row is None or row.reason:
            lines.append((name, 'not run' if row is None else 'cannot be made', *['-'] * (len(STEPS) + 2)))
            continue
        results = {result.step: result for result in row.results}
        cells = []
        for step in STEPS:
            result = results.get(step.name)
            if result is None:
                cells.append('-')
                continue
            what = f'{result.tests}' if step.tests else 'ok' if result.passed else 'fails'
            what += f', {result.failures} fail' if result.failures else ''
            cells.append(f'{what} ({result.seconds:.0f} s)')
        total = sum(result.seconds for result in row.results)
        lines.append((name, 'passes' if row.passed else 'fails', *cells, f'{total:.0f}', f'{row.disk:.1f}'))
    return _table(heads, lines)


def _reasons(stacks: Mapping[str, Stack], rows: Mapping[str, Row]) -> str:
    said = []
    for name in stacks:
        row = rows.get(name)
        if row is None:
            continue
        if row.reason:
            said.append(f'* {name} cannot be made here: {row.reason}')
        said += [f'* {name}, {result.step}: {result.said}' for result in row.results if not result.passed]
    return '\n'.join(said) + '\n' if said else ''


def _table(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rows = [heads, ('---',) * len(heads), *lines]
    return ''.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |\n' for row in rows)
