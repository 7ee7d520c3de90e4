"""What a model consists of and what can be recorded in it."""
