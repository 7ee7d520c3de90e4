_base_ = ['../_base_/models/espnet.py', '../_base_/datasets/camvid.py',
          'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_40k.py',
          'mmkd_plugin::_base_/structured_seg/pixel_pair_holistic.py']

distill = dict(
    teacher='mmkd_plugin::structured_seg/pspnet_r101_camvid.py',
    teacher_ckpt='work_dirs/structured_seg/pspnet_r101_camvid.pth')
