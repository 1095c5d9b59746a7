"""Topics: read or written, captured from a model, and made into training files."""
