"""VOC 2012 with its further annotations as semseg trains PSPNet on it: crops of 473, turned by up to 10 degrees, blurred."""

_base_ = 'mmseg::_base_/datasets/pascal_voc12_aug.py'

crop_size = (473, 473)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    # VOC's longer side is 500 pixels.
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=(103.53, 116.28, 123.675), seg_pad_val=255),
    dict(type='mmkd_plugin.RandomGaussianBlur', sigma=1.1, prob=0.5),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),
]
annotated = [
    dict(
        type='PascalVOCDataset',
        data_root='data/VOCdevkit/VOC2012',
        data_prefix=dict(img_path='JPEGImages', seg_map_path=maps),
        ann_file=f'ImageSets/Segmentation/{split}.txt',
        pipeline=train_pipeline)
    for maps, split in (('SegmentationClass', 'train'), ('SegmentationClassAug', 'aug'))
]
train_dataloader = dict(batch_size=4, dataset=dict(datasets=annotated))
