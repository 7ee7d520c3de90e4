"""The authors' pair on VOC 2007, on the single map of both backbones."""

_base_ = ['../voc/faster-rcnn_vgg11.py', 'mmkd_plugin::_base_/fgi/authors.py']

distill = dict(
    teacher='mmkd_plugin::voc/faster-rcnn_vgg16.py',
    teacher_ckpt='work_dirs/voc/faster-rcnn_vgg16.pth')
