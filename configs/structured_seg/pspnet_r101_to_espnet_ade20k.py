_base_ = ['../_base_/models/espnet.py', 'mmseg::_base_/datasets/ade20k.py',
          'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_160k.py',
          'mmkd_plugin::_base_/structured_seg/pixel_pair_holistic.py']

model = dict(data_preprocessor=dict(size=(512, 512)), decode_head=dict(num_classes=150))
distill = dict(
    teacher='mmseg::pspnet/pspnet_r101-d8_4xb4-160k_ade20k-512x512.py',
    teacher_ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x512_160k_ade20k/'
    'pspnet_r101-d8_512x512_160k_ade20k_20200615_100650-967c316f.pth')
