"""When student, teacher and distiller run; what is trained and what is saved."""

from mmkd_plugin.algorithms.distill import DistillAlgorithm
from mmkd_plugin.teachers.frozen import FrozenTeacher, build_teacher

__all__ = ['DistillAlgorithm', 'FrozenTeacher', 'build_teacher']
