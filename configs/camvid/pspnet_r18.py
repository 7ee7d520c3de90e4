_base_ = ['../_base_/models/pspnet_r18_mini.py', '../_base_/datasets/camvid_mini.py', '../_base_/schedules/mini_seg.py']

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
