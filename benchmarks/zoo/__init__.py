"""Distil every family of a model zoo for one step and tell which ones work."""
