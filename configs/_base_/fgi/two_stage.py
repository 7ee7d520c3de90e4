"""FGI with the authors' settings, for detectors with an RPN, whose anchors are used: Faster, Mask and Cascade R-CNN."""

_base_ = './one_stage.py'
