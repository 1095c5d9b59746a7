"""Let the model answer a prompt, so that the states of its answer can be read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from selfie_adapters.chat.in_process import end_tokens
from selfie_adapters.chat.request import Message
from selfie_adapters.config.shared import Sampling
from selfie_adapters.errors import PromptError
from selfie_adapters.inference.continuation import Continuation
from selfie_adapters.inference.generate import generate
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.limits import check_ids
from selfie_adapters.model.user_text import Chat, usual_chat
from selfie_adapters.reading.plan import check_length, prompt_ids


def answer_ids(
    model: FrozenModel, prompt: str | Sequence[Message], chat: Chat | None, max_tokens: int
) -> list[int]:
    """Token ids of the model's greedy answer to `prompt`, at most `max_tokens`, end token excluded.

    The prompt is formatted as `plan_reading` formats it; plain text is continued. Raises
    PromptError for a conversation that ends with an answer, for a prompt too long to be answered,
    and for an empty answer.
    """
    if not isinstance(prompt, str) and prompt[-1].role == "assistant":
        raise PromptError(
            "the conversation ends with an answer, so there is nothing to answer. Remove its last "
            "message, or read it as it is, without --generate."
        )
    ids = prompt_ids(model.tokenizer, prompt, usual_chat(model.tokenizer, chat))
    check_length(model, len(ids) + max_tokens, "prompt and answer have")
    check_ids(model, ids, "the prompt")
    read = Continuation(model, torch.tensor([ids]))
    ends = end_tokens(model).to(model.device)
    ((_, answer),) = generate(
        read, [0], Sampling(max_new_tokens=max_tokens, stop_at_quote=False), ends
    )
    found = answer.ids[:-1] if answer.ended else answer.ids
    if not found:
        raise PromptError("the model ends its answer at once: there is no token of it to read.")
    return found
