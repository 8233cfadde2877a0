"""Consent judged a second time, from the written rules and with nothing of the package (I-6).

Everything is a set that is written out in full: the pairs (compartment, month) that a request asks for, those that a
consent holds, those that an exception takes away or gives. Policies and requests are plain dicts:

    consent: id, pid, revoked, first, last (its period, the last instant not in it), base, actors, purposes,
             compartments (None = all), months (None = all), exceptions, never_break_glass, max_uses, uses
    exception: actors, purposes, compartments, months, labels
    request: pid, basis, purpose, actor (kind, name, salt) or None, compartments, labels, months, records, has_reason
    reader: truths (the (kind, name) pairs that hold of it), is_clinical, may_break_glass
"""

from itertools import product

ALL_COMPARTMENTS = frozenset(range(5))
ALL_MONTHS = frozenset(range(7))
"""Month 0 stands for all those that no policy of the tests names."""

COVERED = {
    "TREAT": {"TREAT", "COC", "POPHLTH"},
    "COC": {"COC"},
    "ETREAT": {"ETREAT", "ERTREAT"},
    "ERTREAT": {"ERTREAT"},
    "CLINTRL": {"CLINTRL"},
    "HPAYMT": {"HPAYMT", "COVERAGE", "ELIGVER", "ELIGDTRM", "ENROLLM", "MILDCRG", "CLMATTCH", "COVAUTH", "REMITADV"},
    "COVERAGE": {"COVERAGE", "ELIGVER", "ELIGDTRM", "ENROLLM", "MILDCRG"},
    "ELIGVER": {"ELIGVER"},
    "HRESCH": {"HRESCH", "CLINTRCH"},
    "PATRQT": {"PATRQT", "FAMRQT"},
    "FAMRQT": {"FAMRQT"},
}
ORDER = ["REVOKED", "EXPIRED", "NOT_YET", "ACTOR", "PURPOSE", "SCOPE", "LABEL", "USES"]
RECORDS_MAX = 256


def region(compartments, months):
    """All pairs that lie in these compartments and months."""
    held = ALL_COMPARTMENTS if compartments is None else frozenset(compartments)
    span = ALL_MONTHS if months is None else frozenset(range(months[0], months[1] + 1))
    return set(product(held, span))


def purposes_of(granted):
    """Every purpose that one of these covers; None: every purpose there is."""
    return None if not granted else set().union(*(COVERED[purpose] for purpose in granted))


def includes(purposes, asked):
    return purposes is None or asked in purposes


def is_meant(actors, actor):
    return not actors or actor in actors


def shown_actor(request, reader):
    """The actor that the request shows, if it is true of the reader."""
    actor = request["actor"]
    return actor if actor is not None and actor[:2] in reader["truths"] else None


def in_force(consent, now):
    return not consent["revoked"] and now in range(consent["first"], consent["last"])


def taken_away(consent, request, actor):
    """The reasons of the deny exceptions that some asked pair falls under."""
    asked = region(request["compartments"], request["months"])
    base = region(consent["compartments"], consent["months"])
    reasons = set()
    for exception in consent["exceptions"]:
        touched = asked & base & region(exception["compartments"], exception["months"])
        label_fits = not exception["labels"] or set(exception["labels"]) & set(request["labels"])
        purpose_fits = includes(purposes_of(exception["purposes"]), request["purpose"])
        if touched and label_fits and purpose_fits and is_meant(exception["actors"], actor):
            reasons.add("LABEL" if exception["labels"] else "SCOPE")
    return reasons


def objections(consent, request, actor, now):
    """Every reason why this consent alone does not allow the request."""
    found = set()
    asked = region(request["compartments"], request["months"])
    if consent["revoked"]:
        found.add("REVOKED")
    if now >= consent["last"]:
        found.add("EXPIRED")
    if now < consent["first"]:
        found.add("NOT_YET")
    if not is_meant(consent["actors"], actor):
        found.add("ACTOR")
    if not includes(purposes_of(consent["purposes"]), request["purpose"]):
        found.add("PURPOSE")
    if asked - region(consent["compartments"], consent["months"]):
        found.add("SCOPE")
    if consent["max_uses"] and consent["uses"] >= consent["max_uses"]:
        found.add("USES")
    if consent["base"] == "permit":
        return found | taken_away(consent, request, actor)
    near = False
    for exception in consent["exceptions"]:
        given = (
            is_meant(exception["actors"], actor)
            and includes(purposes_of(exception["purposes"]), request["purpose"])
            and not asked - region(exception["compartments"], exception["months"])
        )
        if given and (not exception["labels"] or not set(request["labels"]) - set(exception["labels"])):
            return found
        near = near or given
    return found | {"LABEL" if near else "SCOPE"}


def first_reason(reasons):
    return min(reasons, key=ORDER.index)


def evaluate(request, reader, consents, default_policy, now):
    """ALLOWED, or the reason of the denial."""
    own = [consent for consent in consents if consent["pid"] == request["pid"]]
    if request["purpose"] == "BTG":
        forbidden = any(consent["never_break_glass"] and in_force(consent, now) for consent in own)
        small = request["records"] <= RECORDS_MAX
        ok = reader["may_break_glass"] and request["has_reason"] and small and not forbidden
        return "ALLOWED" if ok else "BTG_FORBIDDEN"
    actor = shown_actor(request, reader)
    if request["basis"] is not None:
        named = [consent for consent in own if consent["id"] == request["basis"]]
        if not named:
            return "NO_CONSENT"
        reasons = objections(named[0], request, actor, now)
        return first_reason(reasons) if reasons else "ALLOWED"
    candidates = [consent for consent in own if is_meant(consent["actors"], actor)]
    if not candidates:
        is_treatment = reader["is_clinical"] and request["purpose"] in COVERED["TREAT"]
        permits = {"all-normal": True, "basic-normal": is_treatment}.get(default_policy, False)
        return "ALLOWED" if permits and not request["labels"] else "NO_CONSENT"
    overruling = set()
    for consent in candidates:
        about = in_force(consent, now) and includes(purposes_of(consent["purposes"]), request["purpose"])
        if about and consent["base"] == "permit":
            overruling |= taken_away(consent, request, actor)
    if overruling:
        return first_reason(overruling)
    verdicts = [objections(consent, request, actor, now) for consent in candidates]
    if any(not reasons for reasons in verdicts):
        return "ALLOWED"
    return first_reason({first_reason(reasons) for reasons in verdicts})
