_base_ = ['mmdet::yolox/yolox_m_8xb8-300e_coco.py', 'mmkd_plugin::_base_/fgd/yolox.py']

distill = dict(
    teacher='mmdet::yolox/yolox_l_8xb8-300e_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_l_8x8_300e_coco/yolox_l_8x8_300e_coco_20211126_140236-d3bd2b23.pth')
