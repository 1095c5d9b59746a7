"""Text from chat models: the frozen model itself, or any server that speaks a known protocol."""

from selfie_adapters.chat.cache import AnswerCache, open_chat
from selfie_adapters.chat.request import ChatModel, ChatRequest, Message
from selfie_adapters.config.shared import ChatSettings

__all__ = ["AnswerCache", "ChatModel", "ChatRequest", "ChatSettings", "Message", "open_chat"]
