_base_ = ['./pspnet_r50.py', 'mmkd_plugin::_base_/structured_seg/pixel_pair.py']

distill = dict(
    teacher='mmseg::pspnet/pspnet_r101-d8_4xb4-320k_coco-stuff164k-512x512.py',
    teacher_ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/'
    'pspnet_r101-d8_512x512_4x4_320k_coco-stuff164k/'
    'pspnet_r101-d8_512x512_4x4_320k_coco-stuff164k_20210707_152004-72220c60.pth')
