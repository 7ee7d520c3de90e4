"""What several rooms need and no method is about."""
