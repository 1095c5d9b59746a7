"""What is added to a vector, and how strong it must be before the label follows."""
