_base_ = '../fgi_faster-rcnn_r34_to_r18.py'

distill = dict(methods=dict(fgi=dict(region='all')))
