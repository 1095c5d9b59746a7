"""Where training data comes from: topics (prompts) and the concepts that ship with the project."""

from selfie_adapters.sources.topics import Topic, read_topics, topic_vectors

__all__ = ["Topic", "read_topics", "topic_vectors"]
