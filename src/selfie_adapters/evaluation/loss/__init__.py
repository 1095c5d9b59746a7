"""Loss of held-out labels."""
