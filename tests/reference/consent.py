"""Consent judged a second time, from health rule 3.4 and the notes of IHE PCF, with nothing of the package (I-6).

Everything is a set that is written out in full: the items of a small chart that a request may ask for, those that a
consent holds, those that an exception takes away or gives. An item is (compartment, class, month, record, author,
encounter); in each place one value stands for all those that no policy of the tests names. Policies and requests are
plain dicts:

    consent: id, pid, revoked, first, last (its period, the last instant not in it), base, actors, purposes,
             exceptions, btg ("policy", "named" or "never"), btg_actors, max_uses, uses, and a scope
    exception: actors, purposes, and a scope
    scope: compartments, classes, months (None = all), records, authors, encounters (empty = not named),
           labels (None = whatever)
    request: pid, basis, purpose, actor (kind, name, salt) or None, n_records, reason, labels, and
             compartments, classes, months, records, authors, encounters (empty or None = not said)
    reader: truths (the (kind, name) pairs that hold of it), is_clinical, may_break_glass, has_second_factor
    setting: policy, now, is_deceased
"""

from itertools import product

PLACES = {
    "compartments": (0, 1, 2, "elsewhere"),
    "classes": ("c1", "c2", "elsewhere"),
    "months": (0, 1, 2, 3),
    "records": ("r1", "r2", "elsewhere"),
    "authors": ("a1", "a2", "elsewhere"),
    "encounters": ("e1", "elsewhere"),
}
"""Month 0 stands for all those that no policy of the tests names."""
CHART = [dict(zip(PLACES, values, strict=True)) for values in product(*PLACES.values())]
NAMED = ("records", "authors", "encounters")

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


def asked_of(request):
    """All items that a request may be about: what it does not say may be anything."""
    items = set(range(len(CHART)))
    for place in ("compartments", "classes", *NAMED):
        if request[place]:
            items &= {number for number in items if CHART[number][place] in request[place]}
    return items & inside(request["months"])


def inside(months):
    """The items of these months."""
    if months is None:
        return set(range(len(CHART)))
    return {number for number, item in enumerate(CHART) if item["months"] in range(months[0], months[1] + 1)}


def held_by(scope):
    """All items that lie in a scope, whatever their labels."""
    items = inside(scope["months"])
    for place in ("compartments", "classes"):
        if scope[place] is not None:
            items &= {number for number in items if CHART[number][place] in scope[place]}
    if any(scope[place] for place in NAMED):
        items &= {number for number in items if any(CHART[number][place] in scope[place] for place in NAMED)}
    return items


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
    """The reasons of the deny exceptions that some asked item falls under."""
    reasons = set()
    for exception in consent["exceptions"]:
        if not includes(purposes_of(exception["purposes"]), request["purpose"]):
            continue
        if not is_meant(exception["actors"], actor):
            continue
        if exception["labels"] is not None and not set(exception["labels"]) & set(request["labels"]):
            continue
        if asked_of(request) & held_by(consent) & held_by(exception):
            reasons.add("SCOPE" if exception["labels"] is None else "LABEL")
    return reasons


def objections(consent, request, actor, now):
    """Every reason why this consent alone does not allow the request."""
    found = set()
    asked = asked_of(request)
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
    if asked - held_by(consent):
        found.add("SCOPE")
    if consent["labels"] is not None and set(request["labels"]) - set(consent["labels"]):
        found.add("LABEL")
    if consent["max_uses"] and consent["uses"] >= consent["max_uses"]:
        found.add("USES")
    if consent["base"] == "permit":
        return found | taken_away(consent, request, actor)
    near = False
    for exception in consent["exceptions"]:
        given = (
            is_meant(exception["actors"], actor)
            and includes(purposes_of(exception["purposes"]), request["purpose"])
            and not asked - held_by(exception)
        )
        if given and (exception["labels"] is None or not set(request["labels"]) - set(exception["labels"])):
            return found
        near = near or given
    return found | {"LABEL" if near else "SCOPE"}


def first_reason(reasons):
    return min(reasons, key=ORDER.index)


def break_glass(request, reader, own, setting):
    """PCF: who is authorised to declare it, and did; ours: with reason, colleague and bounds, unless forbidden."""
    if setting["is_deceased"]:
        return "DECEASED"
    standing = [consent for consent in own if in_force(consent, setting["now"])]
    named = [actor for consent in standing if consent["btg"] == "named" for actor in consent["btg_actors"]]
    forbidden = any(consent["btg"] == "never" for consent in standing)
    is_named = not named or shown_actor(request, reader) in named
    small = request["n_records"] <= RECORDS_MAX
    if not (reader["may_break_glass"] and request["reason"] == "written" and small and is_named) or forbidden:
        return "BTG_FORBIDDEN"
    return "ALLOWED" if reader["has_second_factor"] else "COSIGNERS"


def by_default(request, reader, setting):
    """PCF's four policies for a patient without a consent on file."""
    if setting["is_deceased"]:
        basic = everything = request["purpose"] == "HDECD"
    else:
        basic, everything = request["purpose"] in COVERED["TREAT"], True
    permits = {"all-normal": everything, "basic-normal": basic and reader["is_clinical"]}
    return "ALLOWED" if permits.get(setting["policy"], False) and not request["labels"] else "NO_CONSENT"


def evaluate(request, reader, consents, setting):
    """ALLOWED, or the reason of the denial."""
    now = setting["now"]
    own = [consent for consent in consents if consent["pid"] == request["pid"]]
    if request["purpose"] == "BTG":
        return break_glass(request, reader, own, setting)
    actor = shown_actor(request, reader)
    if request["basis"] is not None:
        named = [consent for consent in own if consent["id"] == request["basis"]]
        if not named:
            return "NO_CONSENT"
        reasons = objections(named[0], request, actor, now)
        return first_reason(reasons) if reasons else "ALLOWED"
    candidates = [consent for consent in own if is_meant(consent["actors"], actor)]
    if not candidates:
        return by_default(request, reader, setting)
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
