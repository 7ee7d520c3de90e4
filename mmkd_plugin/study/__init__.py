"""Measure what distillation brings: runs, tables, pictures, and a regression check for CI."""
