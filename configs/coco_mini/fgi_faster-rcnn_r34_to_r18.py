_base_ = ['./faster-rcnn_r18.py', 'mmkd_plugin::_base_/fgi/two_stage.py']

# Boxes of 12 to 60 pixels, on three levels from stride 8: half of what suits the stock anchors.
distill = dict(
    teacher='mmkd_plugin::coco_mini/faster-rcnn_r34.py',
    teacher_ckpt='mmkd_plugin::coco_mini/faster-rcnn_r34.pth',
    methods=dict(fgi=dict(base_size=28)))
