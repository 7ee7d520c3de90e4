"""The quality control of this project: zoo sweep and check of the numbers."""
