_base_ = ['../_base_/mini/pspnet_r18.py', '../_base_/mini/coco_mini_seg.py', '../_base_/mini/schedule_seg_1600.py']

optim_wrapper = dict(optimizer=dict(lr=5e-3))
