_base_ = ['../retina_r18.py', 'mmkd_plugin::_base_/fgd/ablations/together.py']

distill = dict(teacher='mmkd_plugin::coco_mini/retina_r34.py', teacher_ckpt='mmkd_plugin::coco_mini/retina_r34.pth')
