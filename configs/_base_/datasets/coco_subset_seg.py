"""A part of the real COCO with the maps of COCO-Stuff, 171 classes, made by tools/make_coco_mini.py --maps."""

_base_ = 'mmseg::_base_/datasets/coco-stuff164k.py'

data_root = 'data/coco_subset/'

train_dataloader = dict(
    dataset=dict(data_root=data_root, data_prefix=dict(img_path='train', seg_map_path='semantic/train')))
val_dataloader = dict(
    dataset=dict(data_root=data_root, data_prefix=dict(img_path='val', seg_map_path='semantic/val')))
test_dataloader = val_dataloader
