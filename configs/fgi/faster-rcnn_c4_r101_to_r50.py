"""The paper's kind of detector, with a single map, on COCO."""

_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py', 'mmkd_plugin::_base_/fgi/authors.py']

distill = dict(
    teacher='mmkd_plugin::fgi/faster-rcnn_r101-caffe_c4-1x_coco.py',
    teacher_ckpt='work_dirs/fgi/faster-rcnn_r101-caffe_c4-1x_coco.pth')
optim_wrapper = dict(clip_grad=dict(max_norm=10, norm_type=2))
