_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py', 'mmkd_plugin::_base_/chen/two_stage.py']

# Images are loaded at 1333 x 800, as the teacher was trained; the student sees and is tested on half of that.
model = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd_plugin.ShrinkBatch', scale=2.0)]))
distill = dict(
    teacher='mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_2x_coco/'
    'faster_rcnn_r50_fpn_2x_coco_bbox_mAP-0.384_20200504_210434-a5d8aa15.pth',
    teacher_scale=2.0)

test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(667, 400), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
