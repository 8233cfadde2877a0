"""The words that operations, events and state share: handles, months, kinds and roles.

Every kind of operation is built from these; a new one needs no field type of its own (F-29: no free text).
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from p2pledger.primitives.ids import Bytes16

Handle: TypeAlias = Bytes16
"""A random name, or one derived from secrets, that says nothing about what it names."""
Month = Annotated[int, Meta(ge=190001, le=299912)]
"""Year and month as one number, 202611 for November 2026."""
Months: TypeAlias = tuple[Month, Month]
"""First and last month, both included."""
Count = Annotated[int, Meta(ge=1, le=2**32 - 1)]

IdentityKind = Literal["patient", "practitioner", "researcher", "auditor", "device", "service"]
Role = Literal["physician", "nurse", "pharmacist", "paramedic", "therapist", "clerk", "claims", "researcher", "auditor"]
ActorKind = Literal["person", "organisation", "role", "group"]
BreakGlass = Literal["policy", "named", "never"]
"""`policy`: what the chain's rules say; `named`: of those only whom the consent names; `never`: nobody at all."""
Capacity = Literal["patient", "proxy", "guardian"]
"""In whose right somebody consents: one's own, by a registered proxy's, or a guardian's (F-07, F-30)."""
ProxyKind = Literal["parent", "attorney", "guardian"]
Power = Literal["consent", "read", "erase"]
"""What a proxy may do for the patient: grant and revoke consents, read, ask for erasure."""
Verdict = Literal["justified", "unjustified", "unclear"]
"""What a review finds about broken glass."""
ErasureVerdict = Literal["accept", "partial", "refuse"]
ErasureBasis = Literal["legal-hold", "art17-3-b", "art17-3-c", "art17-3-d", "art17-3-e", "retention-law"]
"""Why something is not erased: litigation; Art. 17(3) GDPR (b) a legal obligation or public task, (c) public health,
(d) archives and research, (e) legal claims; the law on keeping medical records (F-27)."""
RevokeReason = Literal["withdrawn", "error", "expired", "superseded", "other"]
Schema = Annotated[int, Meta(ge=1, le=255)]
"""1 = FHIR R4 JSON, 2 = FHIR R4 NDJSON, 3 = DICOM, 4 = PDF, 255 = other bytes."""

Compartments = Annotated[tuple[Handle, ...], Meta(max_length=256)]
Labels = Annotated[tuple[Handle, ...], Meta(max_length=64)]
Classes = Annotated[tuple[Handle, ...], Meta(max_length=64)]
Records = Annotated[tuple[Handle, ...], Meta(max_length=256)]
"""Single records by their handles (`operations.record_handle`)."""
Authors = Annotated[tuple[Handle, ...], Meta(max_length=64)]
Encounters = Annotated[tuple[Handle, ...], Meta(max_length=64)]
