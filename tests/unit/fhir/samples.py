"""The sample files of the package."""

from importlib.resources import files

_SAMPLES = files("p2pledger.samples")
PATIENTS = ("Eboni_Brekke", "Fidel_Bins", "Louis_Maggio", "Luigi_Wiegand", "Patria_Schimmel", "Trenton_Turner")


def bundle(name: str) -> bytes:
    """The bundle whose file name begins with `name`."""
    (found,) = [item for item in (_SAMPLES / "bundles").iterdir() if item.name.startswith(name)]
    return found.read_bytes()


def ndjson(kind: str) -> bytes:
    return (_SAMPLES / "bulk10" / f"{kind}.000.ndjson").read_bytes()


BULK_KINDS = (
    "AllergyIntolerance",
    "Condition",
    "Device",
    "Immunization",
    "Location",
    "Organization",
    "Patient",
    "Practitioner",
    "PractitionerRole",
)
