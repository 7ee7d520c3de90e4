_base_ = ['../_base_/models/retina_r34_mini.py', '../_base_/datasets/bccd.py', '../_base_/schedules/mini.py']

model = dict(bbox_head=dict(num_classes=3))
