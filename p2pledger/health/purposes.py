"""Why somebody wants to read: the PurposeOfUse codes of HL7 v3 ActReason, and which of them covers which.

The table is the `PurposeOfUse` branch of the code system v3-ActReason, version 2018-08-12, from the package
hl7.fhir.r4.core 4.0.1 (HL7, licence CC0-1.0), without the abstract root. In that tree emergency treatment, breaking
the glass and clinical trials stand *under* treatment. A consent to treatment must give none of them, so whoever
walks upwards stops there.
"""

from typing import Final, Literal

Purpose = Literal[
    "HMARKT", "HOPERAT", "CAREMGT", "DONAT", "FRAUD", "GOV", "HACCRED", "HCOMPL", "HDECD", "HDIRECT", "HDM",
    "HLEGAL", "HOUTCOMS", "HPRGRP", "HQUALIMP", "HSYSADMIN", "LABELING", "METAMGT", "MEMADMIN", "MILCDM",
    "PATADMIN", "PATSFTY", "PERFMSR", "RECORDMGT", "SYSDEV", "HTEST", "TRAIN", "HPAYMT", "CLMATTCH",
    "COVAUTH", "COVERAGE", "ELIGDTRM", "ELIGVER", "ENROLLM", "MILDCRG", "REMITADV", "HRESCH", "BIORCH",
    "CLINTRCH", "CLINTRCHNPC", "CLINTRCHPC", "PRECLINTRCH", "DSRCH", "POARCH", "TRANSRCH", "PATRQT", "FAMRQT",
    "PWATRNY", "SUPNWK", "PUBHLTH", "DISASTER", "THREAT", "TREAT", "CLINTRL", "COC", "ETREAT", "BTG",
    "ERTREAT", "POPHLTH",
]  # fmt: skip

_CHILDREN: Final[dict[str, tuple[Purpose, ...]]] = {
    "PurposeOfUse": ("HMARKT", "HOPERAT", "HPAYMT", "HRESCH", "PATRQT", "PUBHLTH", "TREAT"),
    "HOPERAT": (
        "CAREMGT",
        "DONAT",
        "FRAUD",
        "GOV",
        "HACCRED",
        "HCOMPL",
        "HDECD",
        "HDIRECT",
        "HDM",
        "HLEGAL",
        "HOUTCOMS",
        "HPRGRP",
        "HQUALIMP",
        "HSYSADMIN",
        "MEMADMIN",
        "MILCDM",
        "PATADMIN",
        "PATSFTY",
        "PERFMSR",
        "RECORDMGT",
        "SYSDEV",
        "TRAIN",
    ),
    "HSYSADMIN": ("LABELING", "METAMGT"),
    "SYSDEV": ("HTEST",),
    "HPAYMT": ("CLMATTCH", "COVAUTH", "COVERAGE", "REMITADV"),
    "COVERAGE": ("ELIGDTRM", "ELIGVER", "ENROLLM", "MILDCRG"),
    "HRESCH": ("BIORCH", "CLINTRCH", "DSRCH", "POARCH", "TRANSRCH"),
    "CLINTRCH": ("CLINTRCHNPC", "CLINTRCHPC", "PRECLINTRCH"),
    "PATRQT": ("FAMRQT", "PWATRNY", "SUPNWK"),
    "PUBHLTH": ("DISASTER", "THREAT"),
    "TREAT": ("CLINTRL", "COC", "ETREAT", "POPHLTH"),
    "ETREAT": ("BTG", "ERTREAT"),
}

PARENTS: Final[dict[str, str]] = {child: parent for parent, children in _CHILDREN.items() for child in children}
"""Each code to the one above it; the uppermost to the abstract `PurposeOfUse`."""

STOPS: Final[frozenset[str]] = frozenset({"ETREAT", "CLINTRL", "BTG"})
"""Codes that nothing above them covers."""


def covers(granted: Purpose, asked: Purpose) -> bool:
    """Whether a consent for `granted` is one for `asked`: the same code or one below it, short of a stop."""
    code: str | None = asked
    while code is not None:
        if code == granted:
            return True
        if code in STOPS:
            return False
        code = PARENTS.get(code)
    return False
