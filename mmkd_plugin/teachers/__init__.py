"""Where teachers come from, what they see, and how far they run."""
