"""Measure what distillation brings: runs, tables, pictures, listings of layers."""
