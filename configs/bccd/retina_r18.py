_base_ = ['../_base_/mini/retinanet_r18.py', '../_base_/mini/bccd.py', '../_base_/mini/schedule.py']

model = dict(bbox_head=dict(num_classes=3))
