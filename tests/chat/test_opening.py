import pytest
from pydantic import ValidationError

from chat_server import chat_server, says
from selfie_adapters.chat import ChatRequest, ChatSettings, Message, open_chat
from selfie_adapters.chat.in_process import InProcessChat
from selfie_adapters.errors import ConfigError, ModelError
from selfie_adapters.model import FrozenModel
from tiny import golden_tokenizer, tiny_network


def test_without_a_name_the_model_under_evaluation_answers():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    chat = open_chat(ChatSettings(), model)
    assert isinstance(chat, InProcessChat)
    assert chat.name == "tiny"
    with pytest.raises(ConfigError, match="no chat model is named"):
        open_chat(ChatSettings())


def test_a_server_by_its_address():
    with chat_server(lambda _asked: says("hello")) as server:
        chat = open_chat(ChatSettings(model="w", url=server.address))
        assert chat.name == "w"
        assert chat.answer([ChatRequest((Message("user", "hi"),), 4)]) == ["hello"]


def test_a_name_without_an_address_is_loaded(tmp_path):
    with pytest.raises(ModelError, match="config"):
        open_chat(ChatSettings(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "http://x/v1"}, "needs the model's name"),
        ({"model": "m", "api_key_env": "K"}, "needs a server"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"api_key": "secret"}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense(values, words):
    with pytest.raises(ValidationError, match=words):
        ChatSettings(**values)
