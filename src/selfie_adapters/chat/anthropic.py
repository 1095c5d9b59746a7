"""Answers of a server that speaks the Anthropic message batches protocol: submitted, fetched later.

What was submitted is kept on disk, so that a run that is killed fetches it and does not pay twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2

from selfie_adapters.chat.request import ChatRequest
from selfie_adapters.chat.server import ChatServer, api_key, well_formed
from selfie_adapters.errors import DataError, DownloadError
from selfie_adapters.files.keyed_rows import KeyedRows
from selfie_adapters.files.resumable_folder import ResumableFolder
from selfie_adapters.http import PassingFailure

_VERSION = "2023-06-01"
_AT_ONCE = 10_000  # requests a batch; the protocol takes 100,000 and 256 MB


class AnthropicBatches:
    """The model `model` behind `base_url`, the address that ends before /messages/batches.

    The protocol knows no seed: requests that differ in it alone are sampled independently.
    """

    weights: str | None = None

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None,
        folder: str | Path,
        poll_seconds: float = 30.0,
    ) -> None:
        """folder: keeps batches.jsonl, one row per batch: `id`, and `digests` of its requests.

        Raises ConfigError for an address that is none or a key that is not set, DataError for
        other content in the file.
        """
        self.name = model
        self._poll_seconds = poll_seconds
        headers = {"anthropic-version": _VERSION}
        if api_key_env is not None:
            headers["x-api-key"] = api_key(api_key_env)
        self._server = ChatServer(base_url, headers, 600.0, api_key_env)
        kept = ResumableFolder(folder, "batches").path
        self._batches = KeyedRows(kept / "batches.jsonl", _parsed, _row)

    def answer(
        self,
        requests: Sequence[ChatRequest],
        done: Callable[[int, str], None] = lambda _number, _text: None,
    ) -> list[str]:
        """Answers in the order of `requests`; `done(number, text)` is called batch by batch.

        Batches submitted earlier are fetched first; only what none of them holds is submitted.
        A request that the server finds invalid has the answer "". Raises DownloadError when the
        server fails, or if requests expired or failed, after all others are handed to `done`.
        """
        numbers: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            numbers.setdefault(request.digest(self.name), []).append(number)
        answers: dict[str, str] = {}
        failed: list[str] = []

        def take(batch: str, found: dict[str, str], errors: list[str]) -> None:
            for digest, text in found.items():
                for number in numbers.get(digest, []):
                    done(number, text)
                answers[digest] = text
            failed.extend(errors)
            if errors:  # what failed must be submitted again by the next run
                self._forget(batch)

        with self._server.opened() as client:
            waiting = [b for b, digests in self._batches.items() if numbers.keys() & set(digests)]
            for batch in waiting:
                take(batch, *self._fetched(client, batch))
            if not failed:
                missing = [digest for digest in numbers if digest not in answers]
                created = [
                    self._create(
                        client, {d: requests[numbers[d][0]] for d in missing[at:][:_AT_ONCE]}
                    )
                    for at in range(0, len(missing), _AT_ONCE)
                ]
                for batch in created:
                    take(batch, *self._fetched(client, batch))
        lost = [digest for digest in numbers if digest not in answers]
        if lost:
            why = failed[0] if failed else "the results do not hold them"
            raise DownloadError(
                f"{self._server.base_url}: {len(lost)} of {len(numbers)} requests have no answer "
                f"({why}). Run it again to send these again; the other answers are kept."
            )
        return [answers[request.digest(self.name)] for request in requests]

    def _create(self, client: httpx2.Client, requests: dict[str, ChatRequest]) -> str:
        rows = [{"custom_id": d, "params": self._params(r)} for d, r in requests.items()]
        batch = self._server.post(
            client, "messages/batches", {"requests": rows}, _batch_id, repeatable=False
        )
        self._batches.add({batch: list(requests)})
        return batch

    def _params(self, request: ChatRequest) -> dict[str, Any]:
        turns = [m._asdict() for m in request.messages if m.role != "system"]
        if request.begun:
            turns.append({"role": "assistant", "content": request.begun})
        params: dict[str, Any] = {
            "model": self.name,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "messages": turns,
        }
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        if system:
            params["system"] = system
        if request.top_p != 1:  # newer models refuse to be given both
            params["top_p"] = request.top_p
        return params

    def _fetched(self, client: httpx2.Client, batch: str) -> tuple[dict[str, str], list[str]]:
        """Answers by digest, and what went wrong with the others; waits until the batch ended."""
        path = f"messages/batches/{batch}"
        while self._server.get(client, path, _status) != "ended":
            time.sleep(self._poll_seconds)
        return self._server.get_text(client, f"{path}/results", _results)

    def _forget(self, batch: str) -> None:
        self._batches.replace({b: digests for b, digests in self._batches.items() if b != batch})


def _parsed(row: dict[str, Any], where: str) -> tuple[str, list[str]]:
    match row:
        case {"id": str(batch), "digests": [*digests]} if all(
            isinstance(digest, str) for digest in digests
        ):
            return batch, digests
        case _:
            raise DataError(f"{where}: id and digests are expected, found {row!r:.80}.")


def _row(batch: str, digests: list[str]) -> dict[str, Any]:
    return {"id": batch, "digests": digests}


def _batch_id(body: Any) -> str:
    match body:
        case {"id": str(batch)} if batch.replace("_", "").replace("-", "").isalnum():
            return batch
        case _:
            raise PassingFailure(f"no id of a batch in {body!r:.200}")


def _status(body: Any) -> str:
    match body:
        case {"processing_status": str(status)}:
            return status
        case _:
            raise PassingFailure(f"no processing_status in {body!r:.200}")


def _results(text: str) -> tuple[dict[str, str], list[str]]:
    answers: dict[str, str] = {}
    errors: list[str] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PassingFailure(f"a result is not JSON: {line[:80]!r}") from error
        match row:
            case {
                "custom_id": str(digest),
                "result": {"type": "succeeded", "message": {"content": list(parts)}},
            }:
                pieces = [part.get("text") for part in parts if isinstance(part, dict)]
                answers[digest] = well_formed("".join(p for p in pieces if isinstance(p, str)))
            case {
                "custom_id": str(digest),
                "result": {"type": "errored", "error": error},
            } if "invalid_request" in json.dumps(error):
                answers[digest] = ""
            case {"custom_id": str(), "result": {"type": str(kind)} as result}:
                errors.append(f"{kind}: {json.dumps(result.get('error', ''))[:200]}")
            case _:
                raise PassingFailure(f"not a result: {line[:120]!r}")
    return answers, errors
