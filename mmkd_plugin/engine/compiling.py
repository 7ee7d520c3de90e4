"""``torch.compile`` of a student that is looked into while it runs."""

from __future__ import annotations

from typing import Any

from mmkd_plugin.algorithms import DistillAlgorithm


def compile_student(algorithm: DistillAlgorithm, wanted: Any, logger: Any) -> None:
    """Compile."""
