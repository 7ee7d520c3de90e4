_base_ = ['../_base_/models/faster-rcnn_r34_mini.py', '../_base_/datasets/bccd.py', '../_base_/schedules/mini.py']

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
