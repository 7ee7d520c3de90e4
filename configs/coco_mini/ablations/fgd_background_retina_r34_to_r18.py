_base_ = ['../retina_r18.py', 'mmkd_plugin::_base_/fgd/ablations/background.py']

distill = dict(teacher='mmkd_plugin::coco_mini/retina_r34.py', teacher_ckpt='mmkd_plugin::coco_mini/retina_r34.pth')
