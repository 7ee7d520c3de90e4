"""The student alone: the zoo's PSPNet R50 of COCO-Stuff, 20,000 iterations of the subset."""

_base_ = [
    'mmseg::_base_/models/pspnet_r50-d8.py',
    '../_base_/datasets/coco_subset_seg.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_20k.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=171),
    auxiliary_head=dict(num_classes=171))
# The rates are stated for 16 images a step; those of a smaller batch, on however many GPUs, are in proportion.
auto_scale_lr = dict(enable=True, base_batch_size=16)
