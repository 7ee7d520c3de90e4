"""When student, teacher and distiller run; what is trained and what is saved."""

from mmkd_plugin.algorithms.distill import DistillAlgorithm

__all__ = ['DistillAlgorithm']
