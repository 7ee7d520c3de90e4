_base_ = ['./retina_r18.py', 'mmkd_plugin::_base_/chen/one_stage.py']

# Images are loaded at 128 pixels, as the teacher was trained; the student sees and is tested on 64.
model = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd_plugin.ShrinkBatch', scale=2.0)]))
distill = dict(
    teacher='mmkd_plugin::coco_mini/retina_r34.py',
    teacher_ckpt='mmkd_plugin::coco_mini/retina_r34.pth',
    teacher_scale=2.0)

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
