"""Answers of a server that speaks the OpenAI chat protocol (vLLM, SGLang, llama.cpp, hosted)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx2

from selfie_adapters.chat.request import ChatRequest
from selfie_adapters.chat.server import ChatServer, api_key, well_formed
from selfie_adapters.errors import DownloadError
from selfie_adapters.http import PassingFailure


class OpenAIChat:
    """The chat model `model` behind `base_url`, the address that ends before /chat/completions."""

    weights: str | None = None

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        concurrency: int = 8,
        timeout: float = 600.0,
    ) -> None:
        """api_key_env: the environment variable that holds the key; None sends none.

        concurrency: how many requests are open at a time. timeout: seconds that an answer may
        take before the request counts as failed. Raises ConfigError for an address that is none
        or a variable that is not set.
        """
        self.name = model
        self._concurrency = concurrency
        headers = {}
        if api_key_env is not None:
            headers["Authorization"] = f"Bearer {api_key(api_key_env)}"
        self._server = ChatServer(base_url, headers, timeout, api_key_env)

    def answer(
        self,
        requests: Sequence[ChatRequest],
        done: Callable[[int, str], None] = lambda _number, _text: None,
    ) -> list[str]:
        """Answers in the order of `requests`; `done(number, text)` is called as each one comes.

        A failure for a moment (429, 5xx, a cut body, no answer) is tried again. After a lasting
        one nothing new is asked, the answers still under way are handed to `done`, and
        DownloadError is raised.
        """
        answers = [""] * len(requests)
        failure: DownloadError | None = None
        with self._server.opened() as client, ThreadPoolExecutor(self._concurrency) as pool:
            under_way = {
                pool.submit(self._one, client, request): i for i, request in enumerate(requests)
            }
            try:
                for future in as_completed(under_way):
                    if future.cancelled():
                        continue
                    number = under_way[future]
                    try:
                        answers[number] = future.result()
                    except DownloadError as error:
                        failure = failure or error
                        for other in under_way:
                            other.cancel()
                        continue
                    done(number, answers[number])
            except BaseException:  # stopped by hand, or by `done`: what is open is of no use
                pool.shutdown(wait=False, cancel_futures=True)
                client.close()
                raise
        if failure:
            raise failure
        return answers

    def _one(self, client: httpx2.Client, request: ChatRequest) -> str:
        return self._server.post(client, "chat/completions", self._body(request), _content(request))

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        messages = [message._asdict() for message in request.messages]
        body: dict[str, Any] = {
            "model": self.name,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
        }
        if request.begun:
            messages.append({"role": "assistant", "content": request.begun})
            # vLLM and SGLang continue after the last turn only when the request asks for it.
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body


def _content(request: ChatRequest) -> Callable[[Any], str]:
    def read(body: Any) -> str:
        try:
            text = body["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise PassingFailure(f"no choices[0].message.content in {body!r:.200}") from None
        if text is None:  # a refusal, or an answer that was all reasoning
            return ""
        if not isinstance(text, str):
            raise PassingFailure(f"the answer is {text!r:.200}; a string is expected")
        text = well_formed(text)
        # Some servers repeat what the answer was begun with.
        return text.removeprefix(request.begun) if request.begun else text

    return read
