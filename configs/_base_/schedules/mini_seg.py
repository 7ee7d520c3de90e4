"""The schedule of 800 iterations for segmentors."""

_base_ = './mini_800.py'

default_scope = 'mmseg'
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer')
