"""How much of a vector its label explains, and what the rest of the vector holds."""
