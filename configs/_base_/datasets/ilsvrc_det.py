"""ILSVRC-DET as tools/convert_dataset.py writes it: 200 classes, images 600 pixels high, one a step."""

_base_ = './coco_600.py'

data_root = 'data/ILSVRC/'
# MMEngine reads the names from the file, in which they are called as in the annotations.
classes = data_root + 'annotations/ilsvrc_det_classes.txt'

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/ilsvrc_det_train.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes)))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/ilsvrc_det_val.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/ilsvrc_det_val.json')
test_evaluator = val_evaluator
