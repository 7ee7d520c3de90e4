_base_ = ['../_base_/models/espnet-c.py', 'mmseg::_base_/datasets/cityscapes.py',
          'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_80k.py',
          'mmkd_plugin::_base_/structured_seg/pixel_pair_holistic.py']

model = dict(data_preprocessor=dict(size=(512, 1024)), decode_head=dict(num_classes=19))
distill = dict(
    teacher='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
    teacher_ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x1024_80k_cityscapes/'
    'pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth')
