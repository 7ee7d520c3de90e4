"""A part of the real COCO, all 80 classes, made by tools/make_coco_mini.py --from-coco."""

_base_ = 'mmdet::_base_/datasets/coco_detection.py'

data_root = 'data/coco_subset/'

train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root, ann_file='annotations/instances_train.json', data_prefix=dict(img='train/')))
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
