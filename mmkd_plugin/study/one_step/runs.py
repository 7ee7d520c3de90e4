"""Runs that leave nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer


@contextlib.contextmanager
def forgotten_run() -> Iterator[None]:
    """Take back what a run leaves in MMEngine's tables, so that nothing later writes to its folder."""
    tables = [kind._instance_dict for kind in (MMLogger, MessageHub, Visualizer)]
    before = [set(table) for table in tables]
    try:
        yield
    finally:
        for table, known in zip(tables, before):
            for name in set(table) - known:
                for handler in getattr(table.pop(name), 'handlers', ()):
                    handler.close()
