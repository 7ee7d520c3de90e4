"""What a step compares, as numbers and as figures: for pictures of a finished student and during the training."""
