"""A teacher's records, computed once and read from the disk from then on."""

from mmkd_plugin.teachers.cache.budget import Budget, bytes_text
from mmkd_plugin.teachers.cache.source import CachedSource
from mmkd_plugin.teachers.cache.store import EntryKey, Store
from mmkd_plugin.teachers.cache.teacher import CachedTeacher

__all__ = ['Budget', 'CachedSource', 'CachedTeacher', 'EntryKey', 'Store', 'bytes_text']
