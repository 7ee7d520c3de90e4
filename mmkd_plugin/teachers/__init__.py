"""Where teachers come from, what they see, and how far they run."""

from mmkd_plugin.teachers.frozen import FrozenTeacher
from mmkd_plugin.teachers.source import local_file, model_config
from mmkd_plugin.teachers.weights import LoadedTeacher, build_teacher

__all__ = ['FrozenTeacher', 'LoadedTeacher', 'build_teacher', 'local_file', 'model_config']
