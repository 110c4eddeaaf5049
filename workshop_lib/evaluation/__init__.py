"""JUDGING: what a strategy is worth, with intervals."""

from workshop_lib.evaluation.metrics import Scores, auroc, category_agreement, joint_agreement, score
from workshop_lib.evaluation.statistics import Difference, Share, clustered_share, paired_difference, wilson
from workshop_lib.evaluation.strategies import run_strategies, standard_strategies, taught_rule

__all__ = [
    "Difference",
    "Scores",
    "Share",
    "auroc",
    "category_agreement",
    "clustered_share",
    "joint_agreement",
    "paired_difference",
    "run_strategies",
    "score",
    "standard_strategies",
    "taught_rule",
    "wilson",
]
