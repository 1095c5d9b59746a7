"""From vectors to labels, and which labels a vector speaks for."""

from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.labeller import Label, Labeller
from selfie_adapters.labelling.ranking import CandidateScores, score_candidates

__all__ = ["CandidateScores", "Confidence", "Label", "Labeller", "score_candidates"]
