"""How a patient is guarded, as nodes tell it: who must approve, what waits, until when it is frozen."""

from dataclasses import dataclass

from p2pledger.health.guardian_state import Guardianship, Recovery, decode_recovery
from p2pledger.network.api import GuardiansReply
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode


@dataclass(frozen=True, slots=True)
class Guarding:
    """Both as they were last written; `Guardianship.at` says what has taken effect since."""

    guardianship: Guardianship
    recovery: Recovery | None
    """The one that was asked for."""


def read_guarding(reply: GuardiansReply) -> Guarding:
    """What a reply says; raises InvalidInput."""
    recovery = None if reply.recovery is None else decode_recovery(reply.recovery)
    return Guarding(decode(Guardianship, reply.guardianship, limits.STATE_VALUE_BYTES_MAX), recovery)
