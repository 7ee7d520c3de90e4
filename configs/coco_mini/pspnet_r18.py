_base_ = ['../_base_/models/pspnet_r18_mini.py', '../_base_/datasets/coco_mini_seg.py', '../_base_/schedules/mini_seg_1600.py']

optim_wrapper = dict(optimizer=dict(lr=5e-3))
