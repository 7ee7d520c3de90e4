_base_ = ['mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'mmkd_plugin::_base_/pspnet_kd/pspnet.py']

distill = dict(
    teacher='mmseg::pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    teacher_ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r50-d8_512x1024_80k_cityscapes/'
    'pspnet_r50-d8_512x1024_80k_cityscapes_20200606_112131-2376f12b.pth')
