------------------------------- MODULE Layered -------------------------------
(***************************************************************************)
(* The voting core of docs/protocol.md (P2 to P7, P9, P11 to P13, P17 to   *)
(* P19) put in order of views, and within a view in order of heights.      *)
(*                                                                         *)
(* That loses no behaviour. What is done in view v depends on certificates *)
(* and VIEW-CHANGEs of views up to v only, and a vote at height h depends  *)
(* on votes and certificates at lower heights of its view only; whatever   *)
(* else the rules ask (once for each place, nothing at or below the        *)
(* committed height, nothing beside what stands already) forbids a later   *)
(* statement and never enables one. So every asynchronous run can be put   *)
(* in this order without changing what anybody said. Agreement.tla has no  *)
(* such order, and the same invariants.                                    *)
(*                                                                         *)
(* Only the correct replicas have state. The f faulty validators sign      *)
(* whatever they like, whenever they like, hence:                          *)
(*   - q - f votes of correct replicas are a certificate;                  *)
(*   - a faulty VIEW-CHANGE claims none or any certificate there is;       *)
(*   - every primary is faulty (more than f allow, so every placement of   *)
(*     the faulty one is covered): it proposes anything to anyone and      *)
(*     shows each replica any valid NEW-VIEW.                              *)
(*                                                                         *)
(* A replica's state is what its journal holds. Nothing volatile is        *)
(* modelled, so each state is also the state after a crash and a restart   *)
(* (P19); blocks accepted without a vote may come and go. What is received *)
(* late or never is a statement not made. A lock is learnt with a COMMIT.  *)
(***************************************************************************)
EXTENDS Chain, TLC
CONSTANTS
  Replicas,  \* the correct ones
  Enough,    \* votes of correct replicas that make a quorum: q - f
  Layers,    \* the views are 0..Layers
  Split,     \* the layer at which epoch 1 begins with its view 0; above Layers: never
  Boundary,  \* the last height of epoch 0
  Rotten,    \* the branch whose first block no correct replica finds good (P3), or no branch
  Losses,    \* how many replicas may lose their journal: 0 or 1 (P20)
  Variant    \* "safe", or the rule that is broken

VARIABLES
  layer,     \* the view that all are in
  height,    \* all votes of this view below this height are cast
  base,      \* per replica: the tip of the NEW-VIEW by which it entered (P13)
  other,     \* per replica: a second base, which P13 forbids; normally the same
  head,      \* per replica: the highest block it prepared in this view, else its base
  lock,      \* per replica: the highest certificate it has acted on (P5)
  certs,     \* prepared certificates that may still be shown
  finals,    \* the highest blocks that were committed in earlier views: one, while there is agreement
  fresh,     \* the blocks that were committed in this view
  loser,     \* who lost its journal, if anybody did
  silence,   \* the view in which it did so, while it is silent; then -1
  last       \* what was done, and whether the rules allow it: for the reader of a trace, not a part of the state
state == <<layer, height, base, other, head, lock, certs, finals, fresh, loser, silence>>

Breaks(rule) == Variant = rule
Symmetry == Permutations(Replicas) \cup Permutations(Branches)
ReplicaSymmetry == Permutations(Replicas)                \* where a branch is rotten

(* Epochs (P17, P18): views start again at 0; certificates count, and are ranked, within their epoch *)
HasEpochs == Split <= Layers
Epoch(l) == IF l < Split THEN 0 ELSE 1
OfThisEpoch(facts) == {x \in facts : Epoch(View(x)) = Epoch(layer)}
InEpoch(x) == IF View(x) >= Split THEN <<View(x) - Split, BlockOf(x)>> ELSE x
Outranks(x, y) == IsHigher(InEpoch(x), InEpoch(y))
Outgrows(x, y) == IsTaller(InEpoch(x), InEpoch(y))       \* the unsafe order of claims
IsOpen(h) == HasEpochs => IF Epoch(layer) = 0 THEN h <= Boundary ELSE h > Boundary

Init ==
  /\ layer = 0 /\ height = 1 /\ certs = {} /\ finals = {} /\ fresh = {}
  /\ base = [r \in Replicas |-> Genesis]
  /\ other = base /\ head = base
  /\ lock = [r \in Replicas |-> None]
  /\ loser = {} /\ silence = -1
  /\ last = <<"Init", TRUE>>

(* P2: a block stands on what was accepted from the base upwards, or on what is committed under this view or an earlier
   one and not below that. Blocks between may be accepted without a vote of one's own; nothing may stand beside. *)
IsAttached(r, b) ==
  \/ IsOnChain(head[r], b)
  \/ \E x \in finals \cup fresh : \E h \in Height(head[r])..Height(b) - 1 : h <= Height(x) /\ Ancestor(x, h) = Ancestor(b, h)

(* P3: found good here, or certified; nothing is prepared unless its parent is vouched for in the same way *)
IsGood(b) == b # <<Fork, Rotten>> \/ \E x \in certs : IsOnChain(b, BlockOf(x))

MayPrepare(r, b) ==
  \/ b = base[r]                                                                      \* P13: the tip, once again
  \/ Height(b) > Height(base[r]) /\ IsAttached(r, b) /\ IsGood(b) /\ IsGood(Parent(b)) \* P13: nothing below it; P2, P3
MightPrepare(r, b) ==
  CASE Breaks("below-the-tip") -> Height(b) < Height(base[r]) /\ IsOnChain(b, base[r])
    [] Breaks("good-child-of-a-bad-parent") -> Height(b) > Height(base[r]) /\ IsAttached(r, b) /\ IsGood(b)
    [] Breaks("second-new-view") \/ Breaks("rebuilt-base") ->
         other[r] # base[r] /\ Height(b) >= Height(other[r]) /\ IsOnChain(other[r], b)
    [] OTHER -> FALSE

Nothing == Genesis                                                              \* no vote: the genesis needs none
Permitted(r) == {b \in BlocksAt(height) : MayPrepare(r, b) \/ MightPrepare(r, b)}
IsSilent(r) == r \in loser /\ silence >= 0
Ballots(r) == CASE IsSilent(r) -> {Nothing}
                [] Permitted(r) = {} \/ Rotten \in Branches -> Permitted(r) \cup {Nothing}
                [] OTHER -> Permitted(r)
Quorums(cast) == {b \in BlocksAt(height) : Cardinality({r \in Replicas : cast[r] = b}) >= Enough}
IsUpToDate(r) == \A x \in certs : View(x) = layer => ~IsHigher(x, lock[r])

(* P4 to P6 at one height: each prepares one block; what a quorum prepared is certified; each may COMMIT to it, and is
   locked on it then; what a quorum committed to is committed.
   One vote more never hinders anything but another vote for its place. Hence nobody votes for nothing who may vote for
   something, and who commits at a height has committed to what is certified below it. *)
Vote ==
  /\ height <= Heights /\ IsOpen(height) /\ height' = height + 1
  /\ \E ballots \in {TLCEval([r \in Replicas |-> Ballots(r)])} :  \* the way to have TLC evaluate something once
     \E cast \in {f \in [Replicas -> UNION {ballots[r] : r \in Replicas}] : \A r \in Replicas : f[r] \in ballots[r]} :
       /\ \E certified \in {Quorums(cast)} :
          /\ certs' = certs \cup {<<layer, b>> : b \in certified}
          /\ \E said \in [Replicas -> certified \cup {Nothing}] :
               /\ Breaks("safe") => \A r \in Replicas : said[r] # Nothing => IsUpToDate(r)
               /\ \A r \in loser : IsSilent(r) => said[r] = Nothing
               /\ fresh' = fresh \cup Quorums(said)
               /\ \E heard \in {IF silence >= 0 /\ layer > silence THEN Quorums(said) ELSE {}} :  \* P20: a later view
                    /\ silence' = IF heard = {} THEN silence ELSE -1
                    /\ lock' = [r \in Replicas |->
                         CASE IsSilent(r) /\ heard # {} -> <<layer, CHOOSE b \in heard : TRUE>>
                           [] said[r] = Nothing \/ Breaks("commit-after-view-change") -> lock[r]
                           [] OTHER -> <<layer, said[r]>>]
               /\ last' = <<"Vote", /\ \A r \in Replicas : cast[r] # Nothing => MayPrepare(r, cast[r])
                                    /\ \A r \in Replicas : said[r] # Nothing =>
                                         ~Breaks("commit-after-view-change") /\ ~Breaks("q-2"),
                            layer, cast, said>>
       /\ head' = [r \in Replicas |-> IF cast[r] = Nothing THEN head[r] ELSE cast[r]]
  /\ UNCHANGED <<layer, base, other, finals, loser>>

(* P9, P11, P12: the highest claims that valid NEW-VIEWs for the next view can show. Each correct replica claims its
   lock; a certificate that it might have met beside that is as well shown by a faulty one. *)
Shown(IsAbove(_, _)) ==
  UNION {UNION {LET all == {lock[r] : r \in quorum} \cup {lie} IN {x \in all : \A y \in all : ~IsAbove(y, x)}
                : lie \in {None} \cup OfThisEpoch(certs)}
         : quorum \in {s \in SUBSET {r \in Replicas : ~IsSilent(r)} : Cardinality(s) = Enough}}
BaseOf(r, x) == IF x = None /\ Epoch(layer) = 1 THEN Ancestor(base[r], Boundary) ELSE BlockOf(x)

Others(shown) == CASE Breaks("second-new-view") -> shown
                   [] Breaks("rebuilt-base") -> {lock[r] : r \in Replicas} \cup certs
                   [] OTHER -> {}

Tops(blocks) == {b \in blocks : \A x \in blocks : ~IsOnChain(b, x) \/ b = x}
NextLayer ==
  /\ layer < Layers /\ layer' = layer + 1 /\ height' = 1
  /\ finals' = Tops(finals \cup fresh) /\ fresh' = {}
  /\ UNCHANGED <<loser, silence>>

(* P9 to P13: all change to the next view, and each is shown a NEW-VIEW. To stay away is to say nothing later. *)
Change ==
  /\ height > Heights /\ NextLayer /\ layer + 1 # Split
  /\ \E shown \in {Shown(Outranks)} :
     \E choice \in {IF Breaks("height-first") THEN Shown(Outgrows) ELSE shown} :
     \E least \in {x \in shown : \A y \in shown : ~Outranks(x, y)} :
       \* What can never again be the highest claim of a quorum is forgotten; nor does it matter how low the lowest lock is.
       /\ IF Breaks("safe") /\ Rotten \notin Branches /\ Losses = 0
          THEN /\ certs' = {x \in OfThisEpoch(certs) : ~Outranks(least, x)}
               /\ lock' = [r \in Replicas |-> IF Outranks(least, lock[r]) THEN least ELSE lock[r]]
          ELSE UNCHANGED <<lock, certs>>
       /\ \E tip \in [Replicas -> choice] :
            /\ base' = [r \in Replicas |-> BaseOf(r, tip[r])]
            /\ \/ other' = base'
               \/ \E x \in Others(shown) : \E r \in Replicas : other' = [base' EXCEPT ![r] = BlockOf(x)]
            /\ head' = base'
            /\ last' = <<"Change", (\A r \in Replicas : tip[r] \in shown) /\ other' = base', layer + 1, lock, tip, other'>>

(* P17, P18: epoch 1 begins above the committed boundary, and no lock goes along *)
Begin ==
  /\ ~IsOpen(height) /\ NextLayer /\ layer + 1 = Split
  /\ \E b \in finals \cup fresh :
       /\ Height(b) = Boundary
       /\ base' = [r \in Replicas |-> b]
       /\ last' = <<"Begin", ~Breaks("carried-lock"), layer + 1, b>>
  /\ lock' = IF Breaks("carried-lock") THEN lock ELSE [r \in Replicas |-> None]
  /\ other' = base' /\ head' = base'
  /\ UNCHANGED certs

(* P20: a journal is lost, with lock and all. Its owner has spoken in this view; it speaks again in later ones only, once
   it holds a commit certificate of one of them. How high it had voted does not matter: every place it votes on is new. *)
Lose ==
  /\ Cardinality(loser) < Losses
  /\ \E r \in Replicas : loser' = {r} /\ lock' = [lock EXCEPT ![r] = None] /\ last' = <<"Lose", TRUE, r>>
  /\ silence' = layer
  /\ UNCHANGED <<layer, height, base, other, head, certs, finals, fresh>>

(* A height that this epoch has not, on the way to the next view *)
Skip == /\ ~IsOpen(height) /\ height <= Heights /\ height' = height + 1 /\ last' = <<"Skip", TRUE>>
        /\ UNCHANGED <<layer, base, other, head, lock, certs, finals, fresh, loser, silence>>

Next == Vote \/ Change \/ Begin \/ Skip \/ Lose
Spec == Init /\ [][Next]_<<state, last>>

(* What must hold *)
Agreement == \A x, y \in finals \cup fresh : AreCompatible(x, y)                \* no two committed blocks contradict
OneChain == \A x, y \in certs : View(x) = View(y) => AreCompatible(BlockOf(x), BlockOf(y))   \* lemma: one chain a view
Extends == \A b \in finals : \A x \in certs : View(x) = layer => IsOnChain(b, BlockOf(x))
                                                                  \* lemma: later certificates extend what is committed
Validity == \A b \in finals \cup fresh : ~IsOnChain(<<Fork, Rotten>>, b)        \* what is committed, somebody found good
IsLawful == last[2]                                                             \* the safe model has no unlawful step

(* What must be reachable, lest the rest hold of nothing: each is violated by a run of the safe model *)
NothingHidden == ~\E x \in certs, b \in finals \cup fresh : ~AreCompatible(BlockOf(x), b)
NothingContinued == ~\E b \in finals, x \in fresh : layer = Layers /\ b # x /\ IsOnChain(b, x)
=============================================================================
