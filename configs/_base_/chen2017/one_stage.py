"""Chen et al. 2017 under its former path."""

_base_ = '../chen/one_stage.py'
