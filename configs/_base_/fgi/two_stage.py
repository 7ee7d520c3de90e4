"""FGI with the authors' psi and weight, for detectors with an RPN, whose anchors are used: Faster, Mask and Cascade R-CNN.

On COCO-mini loss_weight='auto' gained more than these weights: take it.
"""

_base_ = './one_stage.py'
