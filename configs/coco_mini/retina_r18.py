_base_ = ['../_base_/models/retina_r18_mini.py', '../_base_/datasets/coco_mini.py', '../_base_/schedules/mini_800.py']
