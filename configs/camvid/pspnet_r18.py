_base_ = ['../_base_/mini/pspnet_r18.py', '../_base_/mini/camvid.py', '../_base_/mini/schedule_seg.py']

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
