"""Adaptation layers that make a student feature comparable with the teacher's."""

from mmkd_plugin.connectors.conv import ConvConnector

__all__ = ['ConvConnector']
