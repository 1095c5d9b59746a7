"""From titles to topics with prompts and labels, written and judged by chat models.

Every answer is kept in the folder: killed at any moment and run again, only what is missing is
asked, and the files are those of one go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from selfie_adapters.chat import AnswerCache, ChatModel, ChatRequest, ChatSettings, open_chat
from selfie_adapters.chat.request import Cost, cost_of
from selfie_adapters.config.prepare import TopicWritingSettings
from selfie_adapters.dataset import split_indices
from selfie_adapters.errors import DataError
from selfie_adapters.files import write_json
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.files.table_rows import file_rows
from selfie_adapters.progress import StepProgress, silent
from selfie_adapters.sources.topics.questions import (
    Candidates,
    judging_request,
    merge,
    read_judgement,
    read_writing,
    writing_request,
)
from selfie_adapters.sources.topics.titles import read_titles

TOPICS, CANDIDATES, REPORT = "topics.jsonl", "candidates.jsonl", "report.json"
_EXPECTED_TEXT = 60  # characters of a label or prompt, before any is written


class TopicWriting:
    """One data set at work in one folder."""

    def __init__(
        self,
        settings: TopicWritingSettings,
        folder: str | Path,
        writer: ChatModel | None = None,
        judge: ChatModel | None = None,
    ) -> None:
        """Reads titles and earlier candidates; asks nothing yet. writer, judge: open already.

        Raises DataError for files that are none, ConfigError for chat models that are none.
        """
        self._settings = settings
        self._folder = Path(folder)
        self._titles = _drawn(read_titles(settings.titles), settings.limit, settings.seed)
        self._earlier = [one for path in settings.earlier for one in read_candidates(path)]
        self._writer = self._opened(settings.writer, "answers", writer)
        self._judge = self._writer
        if judge is not None or settings.judge is not None:
            named = settings.judge or settings.writer
            self._judge = self._opened(named, "judgements", judge)

    def _opened(self, named: ChatSettings, folder: str, chat: ChatModel | None) -> AnswerCache:
        kept = self._folder / folder
        if chat is not None:
            return AnswerCache(chat, kept)
        return open_chat(named, kept, device=self._settings.device)

    def costs(self) -> tuple[Cost, Cost]:
        """Of the writing and of the judging that is still to be asked: at most, about."""
        writing = cost_of(self._writer.missing(self._requests()))
        if not self._settings.judged:
            return writing, cost_of([])
        if writing.requests:  # what will be judged is not written yet
            return writing, cost_of([self._expected_judging(title) for title in self._titles])
        candidates, _ = self._candidates(lambda *_: None)
        return writing, cost_of(self._judge.missing([judging_request(c) for c in candidates]))

    def run(self, progress: StepProgress = silent) -> Path:
        """Ask what is missing, then write topics.jsonl, candidates.jsonl and report.json.

        Returns the path of topics.jsonl. Raises DownloadError, or DataError if fewer than two
        topics are left.
        """
        candidates, counts = self._candidates(progress)
        write_jsonl(self._folder / CANDIDATES, map(asdict, candidates))
        topics, judged = self._judged(candidates, progress)
        counts |= judged
        if len(topics) < 2:
            raise DataError(
                f"{self._settings.titles}: {len(topics)} topics are left of {len(self._titles)} "
                f"titles ({counts}). Read {self._folder / CANDIDATES}; least_mark and "
                "least_labels decide what is dropped."
            )
        _, val = split_indices(range(len(topics)), self._settings.val_fraction, self._settings.seed)
        for number, topic in enumerate(topics):
            topic["split"] = "val" if number in set(val) else "train"
        write_jsonl(self._folder / TOPICS, topics)
        counts |= {"topics": len(topics), "val": len(val)}
        counts["labels kept"] = sum(len(topic["labels"]) for topic in topics)
        report: dict[str, Any] = {"settings": self._settings.model_dump(mode="json")}
        report |= {"writer": self._writer.name, "judge": self._judge.name, "counts": counts}
        report["weights"] = {"writer": self._writer.weights, "judge": self._judge.weights}
        if self._settings.judged:
            report["mean coherence"] = round(float(np.mean([t["coherence"] for t in topics])), 4)
        write_json(self._folder / REPORT, report)
        return self._folder / TOPICS

    def _requests(self) -> list[ChatRequest]:
        s = self._settings
        return [
            writing_request(title, s.prompts, s.labels, run, s.temperature, s.max_tokens)
            for title in self._titles
            for run in range(s.runs)
        ]

    def _expected_judging(self, title: str) -> ChatRequest:
        s, text = self._settings, "x" * _EXPECTED_TEXT
        return judging_request(
            Candidates(title, (text,) * s.prompts * s.runs, (text,) * s.labels * s.runs)
        )

    def _candidates(self, progress: StepProgress) -> tuple[list[Candidates], dict[str, int]]:
        """What all runs wrote about each title, in the titles' order."""
        requests = self._requests()
        answers = _asked(self._writer, requests, "writing", progress)
        asked = [title for title in self._titles for _ in range(self._settings.runs)]
        read = [read_writing(title, text) for title, text in zip(asked, answers, strict=True)]
        runs: dict[str, list[Candidates]] = {title: [] for title in self._titles}
        for one in (*filter(None, read), *self._earlier):
            runs.setdefault(one.title, []).append(one)
        merged = [merge(found) for found in runs.values() if found]
        counts = {
            "titles": len(runs),
            "answers that could not be read": read.count(None),
            "titles without any": sum(not found for found in runs.values()),
            "labels written": sum(len(one.labels) for one in merged),
        }
        return merged, counts

    def _judged(
        self, candidates: list[Candidates], progress: StepProgress
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Rows of the topics that are kept, without split, and counts of what is dropped."""
        s = self._settings
        shared = _shared_labels(candidates)
        counts = {"labels of several topics": 0, "labels with a low mark": 0}
        counts |= {"judgements that could not be read": 0, "topics with too few labels": 0}
        answers = [""] * len(candidates)
        if s.judged:
            requests = [judging_request(one) for one in candidates]
            answers = _asked(self._judge, requests, "judging", progress)
        topics: list[dict[str, Any]] = []
        for one, answer in zip(candidates, answers, strict=True):
            judgement = read_judgement(one, answer) if s.judged else None
            if s.judged and judgement is None:
                counts["judgements that could not be read"] += 1
                continue
            marks = judgement.marks if judgement else (1.0,) * len(one.labels)
            fitting = [(t, m) for t, m in zip(one.labels, marks, strict=True) if m >= s.least_mark]
            kept = [(t, m) for t, m in fitting if t.casefold() not in shared]
            counts["labels with a low mark"] += len(marks) - len(fitting)
            counts["labels of several topics"] += len(fitting) - len(kept)
            if len(kept) < s.least_labels:
                counts["topics with too few labels"] += 1
                continue
            row: dict[str, Any] = {"title": one.title, "name": one.title}
            row["prompt"] = one.prompts[judgement.prompt if judgement else 0]
            row["labels"] = [text for text, _ in kept]
            if judgement:
                row["coherence"] = round(sum(mark for _, mark in kept) / len(kept), 4)
            topics.append(row)
        return topics, counts


def read_candidates(path: str) -> list[Candidates]:
    """candidates.jsonl of an earlier run. Raises DataError naming file and row."""
    found = []
    for place, row in file_rows(Path(path).expanduser()):
        match row:
            case {"title": str(title), "prompts": [*prompts], "labels": [*labels]} if (
                prompts and labels and all(isinstance(t, str) and t for t in (*prompts, *labels))
            ):
                found.append(Candidates(title, tuple(prompts), tuple(labels)))
            case _:
                raise DataError(
                    f"{place}: title, prompts and labels are expected, found {row!r:.80}. Remove "
                    "the row, or name a candidates.jsonl that selfie prepare dataset wrote."
                )
    return found


def _asked(
    chat: ChatModel, requests: Sequence[ChatRequest], what: str, progress: StepProgress
) -> list[str]:
    done = 0

    def one_more(_number: int, _text: str) -> None:
        nonlocal done
        done += 1
        progress(what, done, len(requests))

    return chat.answer(requests, one_more)


def _drawn(titles: Sequence[str], limit: int | None, seed: int) -> Sequence[str]:
    """A sample of the titles, in the file's order."""
    if limit is None or limit >= len(titles):
        return titles
    chosen = np.random.default_rng(seed).permutation(len(titles))[:limit]
    return [titles[int(i)] for i in sorted(chosen)]


def _shared_labels(candidates: Iterable[Candidates]) -> set[str]:
    """Labels, in small letters, that stand with several topics and so tell none of them."""
    counts = Counter(label for one in candidates for label in {t.casefold() for t in one.labels})
    return {label for label, count in counts.items() if count > 1}
