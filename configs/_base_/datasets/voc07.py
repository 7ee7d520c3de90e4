"""VOC 2007 alone: trainval to train, test to test, images 600 pixels high, mAP of eleven points."""

_base_ = 'mmdet::_base_/datasets/voc0712.py'

train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        type='VOCDataset',
        data_root='data/VOCdevkit/',
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline={{_base_.train_pipeline}}))
