"""Where teachers come from, what they see, and how far they run."""

from mmkd_plugin.teachers.frozen import FrozenTeacher
from mmkd_plugin.teachers.layouts import PlainState, plain_state_dict
from mmkd_plugin.teachers.options import TeacherOptions
from mmkd_plugin.teachers.source import local_file, model_config
from mmkd_plugin.teachers.weights import LoadedTeacher, build_teacher

__all__ = [
    'FrozenTeacher',
    'LoadedTeacher',
    'PlainState',
    'TeacherOptions',
    'build_teacher',
    'local_file',
    'model_config',
    'plain_state_dict',
]
