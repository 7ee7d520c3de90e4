"""The quality control of this project: comparisons, the check of the numbers, the zoo sweep and the generated pages."""
