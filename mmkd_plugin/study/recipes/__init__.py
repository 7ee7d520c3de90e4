"""Whole recipes, each trained for one step: which there are, whether they work, and the page of them."""
