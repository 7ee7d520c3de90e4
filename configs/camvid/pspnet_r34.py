_base_ = ['../_base_/mini/pspnet_r34.py', '../_base_/mini/camvid.py', '../_base_/mini/schedule_seg_1600.py']

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
