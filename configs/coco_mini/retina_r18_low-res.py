"""The student on images of half the size: loaded as they are, shrunk behind the loader, tested at 64 pixels."""

_base_ = './retina_r18.py'

model = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd_plugin.ShrinkBatch', scale=2.0)]))

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
