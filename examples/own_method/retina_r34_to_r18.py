"""A RetinaNet on COCO-mini, distilled by a method that lies in a package of one's own."""

_base_ = 'mmkd_plugin::coco_mini/retina_r18.py'

custom_imports = dict(imports=['box_mgd'])
runner_type = 'mmkd_plugin.DistillRunner'
distill = dict(
    teacher='mmkd_plugin::coco_mini/retina_r34.py',
    teacher_ckpt='mmkd_plugin::coco_mini/retina_r34.pth',
    methods=dict(box_mgd=dict(type='box_mgd.BoxMGD', mask_ratio=0.5, loss_weight=0.5)),
)
