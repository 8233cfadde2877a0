"""Is a record one of those that its request spoke of? Judged where shares are released, for each record (F-05).

The chain has judged a request by what it says of itself: classes, labels, months, records, authors, encounters. Only
the leaf of a record says what the record is, and its custodian has committed to the leaf; so a reader that asks for
allergies by consent, and then for the key of something else, is refused here by each validator alone.
"""

from p2pledger.health.commitments import RecordLeaf, RecordRef
from p2pledger.health.operations import AccessRequest, record_handle
from p2pledger.primitives.errors import Code


def check_declared(request: AccessRequest, ref: RecordRef, leaf: RecordLeaf) -> Code:
    """OK, or the first reason why the record is none that was asked for.

    E_SCOPE: a compartment, month, class, author or encounter that the request does not name, though it names such, or a
    record beside those it lists. E_LABEL: a sensitive label that it did not declare.
    """
    if not set(leaf.compartments) <= set(request.compartments):
        return Code.E_SCOPE
    if request.months is not None and not request.months[0] <= leaf.month <= request.months[1]:
        return Code.E_SCOPE
    if request.records and record_handle(ref.batch_id, ref.index) not in request.records:
        return Code.E_SCOPE
    if request.classes and leaf.resource_class not in request.classes:
        return Code.E_SCOPE
    # All of its authors: a denial about one of them is judged by the request, which must have named it.
    if request.authors and not (leaf.authors and set(leaf.authors) <= set(request.authors)):
        return Code.E_SCOPE
    if request.encounters and leaf.encounter not in request.encounters:
        return Code.E_SCOPE
    if not set(leaf.labels) <= set(request.labels):
        return Code.E_LABEL
    return Code.OK
