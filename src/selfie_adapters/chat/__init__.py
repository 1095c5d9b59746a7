"""Text from chat models: the frozen model itself, or any server that speaks a known protocol."""

from selfie_adapters.chat.request import ChatModel, ChatRequest, Message

__all__ = ["ChatModel", "ChatRequest", "Message"]
