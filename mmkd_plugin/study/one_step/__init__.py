"""One training step of any config: on generated images, without downloads, in seconds."""

from mmkd_plugin.study.one_step.runs import forgotten_run
from mmkd_plugin.study.one_step.samples import GeneratedImages, needs, walk
from mmkd_plugin.study.one_step.shrink import offline, one_step_config, teachers_of

__all__ = ['GeneratedImages', 'forgotten_run', 'needs', 'offline', 'one_step_config', 'teachers_of', 'walk']
