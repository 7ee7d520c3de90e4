"""The authors' pair on KITTI at 0.5 of the width, with their weight: squared distances over twice the number of cells."""

_base_ = ['./lite_kitti_0.5x.py', 'mmkd_plugin::_base_/fgi/one_stage.py']

distill = dict(
    teacher='mmkd_plugin::fgi/lite_kitti_1x.py',
    teacher_ckpt='work_dirs/fgi/lite_kitti_1x.pth',
    methods=dict(fgi=dict(adapt_std=1e-4, loss_weight=1.0)))
