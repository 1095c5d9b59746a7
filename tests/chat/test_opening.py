import pytest
from pydantic import ValidationError

from chat_server import chat_server, says
from selfie_adapters.chat import ChatRequest, ChatSettings, Message, open_chat
from selfie_adapters.chat.in_process import InProcessChat
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.config.evaluation.taboo import TabooSettings
from selfie_adapters.errors import ConfigError, ModelError
from selfie_adapters.model import FrozenModel
from tiny import golden_tokenizer, tiny_network


def test_without_a_name_the_model_under_evaluation_answers(tmp_path):
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    chat = open_chat(ChatSettings(), tmp_path, model)
    assert (chat.name, chat.weights) == ("tiny", InProcessChat(model).weights)
    with pytest.raises(ConfigError, match="no chat model is named"):
        open_chat(ChatSettings(), tmp_path)


def test_a_server_by_its_address(tmp_path):
    with chat_server(lambda _asked: says("hello")) as server:
        chat = open_chat(ChatSettings(model="w", url=server.address), tmp_path / "a")
        assert chat.name == "w"
        for _ in range(2):
            assert chat.answer([ChatRequest((Message("user", "hi"),), 4)]) == ["hello"]
    assert len(server.asked) == 1  # the second answer came from the folder
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["answers.jsonl"]


def test_batches_are_a_protocol_of_every_chat_section(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "k")
    asked = []

    class Batches:
        weights = None

        def __init__(self, url, model, key, folder):
            self.name = model
            asked.append((url, model, key, folder))

    monkeypatch.setattr("selfie_adapters.chat.anthropic.AnthropicBatches", Batches)
    for section in (ScoringSettings, BridgeSettings, TabooSettings):
        assert "protocol" in [
            name
            for field in section.model_fields.values()
            if isinstance(field.default, ChatSettings)
            for name in type(field.default).model_fields
        ]
    settings = ChatSettings(
        model="c", url="http://x/v1", api_key_env="SOME_KEY", protocol="anthropic_batches"
    )
    assert open_chat(settings, tmp_path).name == "c"
    assert asked == [("http://x/v1", "c", "SOME_KEY", tmp_path)]


def test_a_name_without_an_address_is_loaded(tmp_path):
    with pytest.raises(ModelError, match="config"):
        open_chat(ChatSettings(model=str(tmp_path)), tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "http://x/v1"}, "needs the model's name"),
        ({"model": "m", "api_key_env": "K"}, "needs a server"),
        ({"protocol": "anthropic_batches"}, "needs url, such as"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"api_key": "secret"}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense(values, words):
    with pytest.raises(ValidationError, match=words):
        ChatSettings(**values)
