"""From vectors to labels, and which labels a vector speaks for."""

from selfie_adapters.inference.label_scores import CandidateScores, score_candidates
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.labeller import Labeller

__all__ = ["CandidateScores", "Confidence", "Label", "Labeller", "score_candidates"]
