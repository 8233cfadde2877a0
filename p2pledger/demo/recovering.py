"""Step 7: the patient's wallet is gone; guardians put another one in its place, and old records open with it."""

from contextlib import AsyncExitStack

from p2pledger.client import guardians
from p2pledger.client.guardians import GuardianApproval, GuardianCard, RecoveryRequest
from p2pledger.client.joint_keys import newest
from p2pledger.client.keyring import Wallet
from p2pledger.client.records import Manifest
from p2pledger.client.recoveries import open_place
from p2pledger.client.vault import Vault
from p2pledger.demo.records import bundle_of
from p2pledger.demo.stage import A, B, Stage, block_time_passes, client_of, now_ms, refusal, when_proven
from p2pledger.health.guardian_operations import RecoveryFinalize
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code

GUARDIANS = ("aunt", "brother", "cousin")
NEEDED = 2
DELAY_MS = 1_500
HOUR_MS = 3_600_000


async def recover(stage: Stage, manifest: Manifest) -> None:
    """Named while all is well; the wallet's file is deleted; two of three are enough, after a delay, and one is not."""
    narrator, lost = stage.narrator, stage.folder / "wallets" / "patient.key"
    narrator.step(7, "The patient loses the wallet; guardians, who hold no key of it, put a new one in its place")
    helpers = {name: Wallet.create(stage.folder / "wallets" / f"{name}.key", None) for name in GUARDIANS}
    cards, copy = await _name_guardians(stage, Wallet.load(lost), helpers)
    lost.unlink()
    narrator.say("  the wallet's file is deleted; what the guardians keep opens nothing and signs nothing")
    wallet = Wallet.create(stage.folder / "wallets" / "patient-new.key", None)
    request, wallet = guardians.ask(copy, wallet, now_ms() + HOUR_MS)
    approvals = [guardians.approve_request(request, cards[name], helpers[name]) for name in GUARDIANS[:NEEDED]]
    due_ms = await _start(stage, wallet, request, approvals)
    async with AsyncExitStack() as stack:
        persona = wallet.at(stage.organisations[A].organisation)
        client = await client_of(stack, stage, persona.signing, A)
        await block_time_passes(client, due_ms)
        for place in request.places:
            await stage.submit(stage.clients[A], RecoveryFinalize(place.pid, place.recovery))
        before = await client_of(stack, stage, stage.patient[A].signing, A)
        roles = (await before.standing()).role, (await client.standing()).role
        narrator.check(
            "after the delay the new key is the patient's at both hospitals, and the lost one is nobody's",
            roles == ("stranger", "patient"),
        )
        guarded = copy.places[0]
        opened = await when_proven(lambda: open_place(client, guarded, wallet))
    wallet = wallet.with_recovered(guarded.organisation, opened.boxes)
    for name in (A, B):
        stage.patient[name] = wallet.at(stage.organisations[name].organisation)
    (former,) = wallet.former_boxes(guarded.organisation)
    vault, whole = Vault(stage.cluster.homes[A] / "vault", former), bundle_of("Fidel_Bins")
    records = [vault.open_record(manifest.ref(entry.index)) for entry in manifest.entries]
    narrator.check(
        f"with the shares of validators the new wallet opens all {len(records)} old records",
        len(records) == len(manifest.entries) and all(record in whole for record in records),
        "sealed to the lost wallet",
    )


async def _name_guardians(
    stage: Stage, wallet: Wallet, helpers: dict[str, Wallet]
) -> tuple[dict[str, GuardianCard], GuardianCard]:
    """A card for each guardian, and one that is nobody's."""
    chain = stage.cluster.founding.chain
    personas = [wallet.at(stage.organisations[name].organisation) for name in (A, B)]
    accepted = [guardians.accept(guardians.invite(personas, chain), helper) for helper in helpers.values()]
    named = []
    for name, persona in zip((A, B), personas, strict=True):
        async with AsyncExitStack() as stack:
            client = await client_of(stack, stage, persona.signing, name)
            _, _, active = await newest(client)
            assert active is not None, "records are sealed to it already"
            escrow = guardians.keep_boxes(persona, wallet.box_secrets(persona.organisation), chain, active)
            one = guardians.name_guardians(persona, accepted, NEEDED, DELAY_MS, escrow)
            await stage.submit(client, one.operation)
            named.append(one)
    cards, copy = guardians.cards_of(named, chain)
    told = [encode(one.operation) for one in named]
    known = [place.guardian for one in named for place in one.places if place.guardian is not None]
    stage.narrator.check(
        f"{NEEDED} of {len(helpers)} guardians are named at both hospitals; the chain sees salted hashes of their keys",
        len(known) == 2 * len(helpers) and not any(sent.count(key) for key in known for sent in told),
    )
    return dict(zip(helpers, cards, strict=True)), copy


async def _start(stage: Stage, wallet: Wallet, request: RecoveryRequest, approvals: list[GuardianApproval]) -> int:
    """Bring the approvals to the chain, at each hospital; when the delay is over."""
    narrator, due = stage.narrator, [0]
    for name, place in zip((A, B), request.places, strict=True):
        async with AsyncExitStack() as stack:
            client = await client_of(stack, stage, wallet.at(place.organisation).signing, name)
            if name == A:
                alone = guardians.start_recovery(place, request, approvals[:1])
                found = await refusal(client.submit(alone))
                narrator.check(f"one guardian alone is refused: {found.name}", found == Code.E_THRESHOLD)
            await stage.submit(client, guardians.start_recovery(place, request, approvals))
            early = await refusal(stage.clients[A].submit(RecoveryFinalize(place.pid, place.recovery)))
            recovery = (await client.guarding(place.pid, recovery=place.recovery)).recovery
            due.append(0 if recovery is None else recovery.due_ms)
    narrator.check(
        "two start the recovery; until the delay is over the old key could veto",
        early == Code.E_TIMELOCK and min(due[1:]) > 0,
        f"{early.name} before, {DELAY_MS / 1000:g} s here, days in practice",
    )
    return max(due)
