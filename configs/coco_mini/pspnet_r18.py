_base_ = ['../_base_/mini/pspnet_r18.py', '../_base_/mini/coco_mini_seg.py', '../_base_/mini/schedule_seg.py']
