"""SAEs: found by name or path, their decoder and encoder read, and training files made of them."""
