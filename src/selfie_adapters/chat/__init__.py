"""Text from chat models: the frozen model itself, or any server that speaks a known protocol."""

from selfie_adapters.chat.cache import AnswerCache
from selfie_adapters.chat.request import ChatModel, ChatRequest, Message
from selfie_adapters.chat.settings import ChatSettings, open_chat

__all__ = ["AnswerCache", "ChatModel", "ChatRequest", "ChatSettings", "Message", "open_chat"]
