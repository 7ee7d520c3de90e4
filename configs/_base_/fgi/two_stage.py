"""FGI with the authors' psi and weight, for detectors with an RPN, whose anchors are used: Faster, Mask and Cascade R-CNN."""

_base_ = './one_stage.py'
