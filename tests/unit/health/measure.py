"""What a request without a name costs at most: `python -m tests.unit.health.measure` (docs/consents.md)."""

import time

from p2pledger.health import access, consent, keys
from p2pledger.health.operations import PolicyException
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.ids import AccountKey
from tests.unit.execution.ledger import id16
from tests.unit.health.world import DOCTOR, World


def main() -> None:
    """The best of twenty judgements by as many consents as a patient may have, plain ones and long ones."""
    for labels in (0, 30):
        world, size, count = World(), 0, 0
        exceptions = (PolicyException(labels=tuple(id16(f"{n}") for n in range(labels))),) if labels else ()
        changes = {"actor_commits": (), "compartments": (id16("elsewhere"),), "exceptions": exceptions}
        while count < limits.CONSENTS_PER_PATIENT_MAX:
            terms = world.consent(consent_id=id16(f"consent {count}"), **changes)
            data = encode(consent.Consent(terms, world.height))
            if size + len(data) > limits.CONSENT_BYTES_PER_PATIENT_MAX:
                break
            world.state.apply({keys.consent(terms.pid, terms.consent_id): data})
            size, count = size + len(data), count + 1
        request = world.request(basis=None)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            access.evaluate(request, AccountKey(DOCTOR.public), world.now_ms, world.state)
            times.append(time.perf_counter() - began)
        print(f"{count} consents of together {size} bytes: {1000 * min(times):.2f} ms")


if __name__ == "__main__":
    main()
