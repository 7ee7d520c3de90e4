"""Pictures of what methods compare and of what they bring."""
