"""Faster R-CNN AlexNet on VOC 2007 with images 688 pixels high: the teacher of the student that sees half of that."""

_base_ = [
    '../_base_/models/faster-rcnn_alexnet.py',
    '../_base_/datasets/voc07_688.py',
    '../_base_/schedules/voc07_10e.py',
]
