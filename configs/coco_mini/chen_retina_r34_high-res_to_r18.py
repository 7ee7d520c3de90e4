_base_ = ['./retina_r18_low-res.py', 'mmkd_plugin::_base_/chen/one_stage.py']

# Images are loaded at 128 pixels, as the teacher was trained; the student sees and is tested on 64.
distill = dict(
    teacher='mmkd_plugin::coco_mini/retina_r34.py',
    teacher_ckpt='mmkd_plugin::coco_mini/retina_r34.pth',
    teacher_scale=2.0)
