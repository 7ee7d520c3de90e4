"""Chen et al. 2017 under its former path."""

_base_ = '../chen/two_stage.py'
