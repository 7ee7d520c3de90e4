"""Chen et al. 2017 with the paper's weights, for Faster and Mask R-CNN: the RPN and the RoI head are distilled.

On COCO-mini loss_weight='auto' gained more than these weights: take it.
"""

_base_ = './one_stage.py'
