_base_ = ['../voc/faster-rcnn_alexnet_688.py', 'mmkd_plugin::_base_/chen/paper.py']

# Images are loaded 688 pixels high, as the teacher was trained; the student sees and is tested on 344.
model = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd_plugin.ShrinkBatch', scale=2.0)]))
distill = dict(
    teacher='mmkd_plugin::voc/faster-rcnn_alexnet_688.py',
    teacher_ckpt='work_dirs/voc/faster-rcnn_alexnet_688.pth',
    teacher_scale=2.0,
    # On a single map the teacher's anchors lie at a stride of 8 of the student's pixels, so the RPNs have none in common.
    methods=dict(chen=dict(heads='roi')))

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(573, 344), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
