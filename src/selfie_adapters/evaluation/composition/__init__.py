"""Two concepts in one vector: which of them are named."""
