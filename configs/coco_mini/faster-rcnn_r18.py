_base_ = ['../_base_/mini/faster-rcnn_r18.py', '../_base_/mini/coco_mini.py', '../_base_/mini/schedule_800.py']
