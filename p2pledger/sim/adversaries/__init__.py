"""Validators that lie, by name. Each controls a real identity; a world may hold up to f of them."""

from p2pledger.sim.adversaries.base import Adversary, Rewriter
from p2pledger.sim.adversaries.carriers import BadBatch, Junker, SyncPoisoner
from p2pledger.sim.adversaries.proposers import BadNewView, Censor, Deceiver, Equivocator, TimeTraveller, WrongRoot
from p2pledger.sim.adversaries.voters import (
    FutureSpammer,
    LiarInViewChange,
    Mutator,
    Replayer,
    Silent,
    SlowLoris,
    Twin,
    Withholder,
)

BY_NAME: dict[str, type[Adversary]] = {
    kind.__name__: kind
    for kind in (
        BadBatch,
        BadNewView,
        Censor,
        Deceiver,
        Equivocator,
        FutureSpammer,
        Junker,
        LiarInViewChange,
        Mutator,
        Replayer,
        Silent,
        SlowLoris,
        SyncPoisoner,
        TimeTraveller,
        Twin,
        Withholder,
        WrongRoot,
    )
}

__all__ = [
    "BY_NAME",
    "Adversary",
    "BadBatch",
    "BadNewView",
    "Censor",
    "Deceiver",
    "Equivocator",
    "FutureSpammer",
    "Junker",
    "LiarInViewChange",
    "Mutator",
    "Replayer",
    "Rewriter",
    "Silent",
    "SlowLoris",
    "SyncPoisoner",
    "TimeTraveller",
    "Twin",
    "Withholder",
    "WrongRoot",
]
