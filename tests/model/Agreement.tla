------------------------------ MODULE Agreement ------------------------------
(***************************************************************************)
(* The voting core of docs/protocol.md without any order: every replica    *)
(* goes its own way through the views, appends blocks, prunes its journal  *)
(* (P19), and at most one of them may lose its journal altogether (P20).   *)
(*                                                                         *)
(* Who the faulty are and what they can do is as in Layered.tla: they are  *)
(* in the thresholds, and every primary is theirs. A replica's state is    *)
(* its journal, so each state is also the state after a crash and restart. *)
(***************************************************************************)
EXTENDS Chain, TLC
CONSTANTS
  Replicas,    \* the correct ones, the one that may lose its journal among them
  Enough,      \* how many of them make a quorum, with the faulty ones if there are any
  HasLiars,    \* whether anybody is faulty beside that
  Views,       \* the views are 0..Views
  Losses,      \* how many journals may be lost: 0 or 1
  Variant      \* "safe", or the rule that is broken

VARIABLES
  view, active,     \* where each replica stands, and whether it has entered (P9, P13)
  base,             \* the tip of the NEW-VIEW by which it entered
  votes, commits,   \* what it said, as <<view, block>>, for ever
  claims,           \* its VIEW-CHANGEs, as <<view, claim>>, for ever
  lock,             \* the highest certificate it has acted on (P5)
  floor,            \* its last committed block, with the view of the certificate (P19)
  lost,             \* what it said and has no record of, as <<votes, commits>>
  silence,          \* P20: the view and height up to which it may have said what it forgot; height -1: no more, or never
  last              \* what was done, and whether the rules allow it: for the reader of a trace, not a part of the state
state == <<view, active, base, votes, commits, claims, lock, floor, lost, silence>>

Breaks(rule) == Variant = rule
Symmetry == Permutations(Replicas) \cup Permutations(Branches)
Nobody(x) == [r \in Replicas |-> x]

Init ==
  /\ view = Nobody(0) /\ active = Nobody(TRUE) /\ base = Nobody(Genesis)
  /\ votes = Nobody({}) /\ commits = Nobody({}) /\ claims = Nobody({})
  /\ lock = Nobody(None) /\ floor = Nobody(None)
  /\ lost = Nobody(<<{}, {}>>) /\ silence = Nobody(<<-1, -1>>)
  /\ last = <<"Init", TRUE>>

(* What quorums have said *)
Quorums(said) == {x \in UNION {said[r] : r \in Replicas} : Cardinality({r \in Replicas : x \in said[r]}) >= Enough}
Certs == Quorums(votes)
Finals == Quorums(commits)

(* What a replica remembers of what it said in its view, above its floor *)
Floor(r) == Height(BlockOf(floor[r]))
InJournal(r, said, gone) == {BlockOf(x) : x \in {y \in said \ gone : View(y) = view[r] /\ Height(BlockOf(y)) > Floor(r)}}
Votes(r) == InJournal(r, votes[r], lost[r][1])
Commits(r) == InJournal(r, commits[r], lost[r][2])
MaySpeak(r) == silence[r][2] = -1 /\ view[r] > silence[r][1]

(* P2, P19: at a height it has accepted what it voted for, and every ancestor of what it voted for. The unsafe variant
   forgets in a crash the accepted ancestors that it did not vote for itself. *)
Accepted(r, h, forgets) == {Ancestor(b, h) : b \in {x \in Votes(r) : IF forgets THEN Height(x) = h ELSE Height(x) >= h}}

(* P2: on the base, on what was accepted, or on what is committed under a certificate of this view or an earlier one;
   and once something is committed, on nothing below that. Blocks between may be accepted without a vote of one's own. *)
Committed(r, anyView) == IF View(floor[r]) <= view[r] \/ anyView THEN {BlockOf(floor[r])} ELSE {}
StandsOn(r, b, anchors, forgets) ==
  \/ b = base[r]                                                                           \* P13
  \/ /\ Height(b) > Height(base[r])                                                        \* P13
     /\ \E a \in anchors :
          /\ Height(base[r]) <= Height(a) /\ Height(a) < Height(b) /\ IsOnChain(a, b)
          /\ \A h \in Height(a) + 1..Height(b) : Accepted(r, h, forgets) \subseteq {Ancestor(b, h)}
Anchors(r) == {a \in {base[r]} \cup Votes(r) : Height(a) >= Floor(r)}

MayPrepare(r, b) == Height(b) > Floor(r) /\ StandsOn(r, b, Anchors(r) \cup Committed(r, FALSE), FALSE)
MightPrepare(r, b) ==
  CASE Breaks("no-floor") -> StandsOn(r, b, {base[r]} \cup Votes(r), FALSE)
    [] Breaks("stale-parent") -> Height(b) > Floor(r) /\ StandsOn(r, b, {base[r]} \cup Votes(r), FALSE)
    [] Breaks("forgotten-ancestor") -> Height(b) > Floor(r) /\ StandsOn(r, b, Anchors(r) \cup Committed(r, FALSE), TRUE)
    [] Breaks("later-certificate") -> Height(b) > Floor(r) /\ StandsOn(r, b, Anchors(r) \cup Committed(r, TRUE), FALSE)
    [] OTHER -> FALSE

Prepare(r, b) ==                                                                             \* P4
  /\ MaySpeak(r) /\ active[r] /\ <<view[r], b>> \notin votes[r] /\ \A x \in Votes(r) : Height(x) # Height(b)
  /\ MayPrepare(r, b) \/ MightPrepare(r, b)
  /\ votes' = [votes EXCEPT ![r] = @ \cup {<<view[r], b>>}]
  /\ last' = <<"Prepare", MayPrepare(r, b), r, view[r], b>>
  /\ UNCHANGED <<view, active, base, commits, claims, lock, floor, lost, silence>>

Commit(r, b) ==                                                                              \* P6
  /\ MaySpeak(r) /\ active[r] /\ <<view[r], b>> \in Certs \ commits[r]
  /\ Height(b) > Floor(r) \/ Breaks("no-floor")
  /\ \A x \in Commits(r) : Height(x) # Height(b)
  /\ commits' = [commits EXCEPT ![r] = @ \cup {<<view[r], b>>}]
  /\ lock' = [lock EXCEPT ![r] = Higher(<<view[r], b>>, @)]
  /\ last' = <<"Commit", Height(b) > Floor(r), r, view[r], b>>
  /\ UNCHANGED <<view, active, base, votes, claims, floor, lost, silence>>

(* P7, P19: append, and prune the journal up to there. P20: a certificate of a higher height and view than all that was
   forgotten ends the silence, but for the views that it may have left. *)
Apply(r, x) ==
  /\ Height(BlockOf(x)) > Floor(r)
  /\ floor' = [floor EXCEPT ![r] = x]
  /\ lock' = [lock EXCEPT ![r] = Higher(x, @)]
  /\ silence' = [silence EXCEPT ![r] = IF View(x) > @[1] /\ Height(BlockOf(x)) > @[2] THEN <<@[1], -1>> ELSE @]
  /\ last' = <<"Apply", TRUE, r, View(x), BlockOf(x)>>
  /\ UNCHANGED <<view, active, base, votes, commits, claims, lost>>

ViewChange(r, v) ==                                                                          \* P9
  /\ v > view[r] /\ MaySpeak(r)
  /\ view' = [view EXCEPT ![r] = v] /\ active' = [active EXCEPT ![r] = FALSE]
  /\ claims' = [claims EXCEPT ![r] = @ \cup {<<v, lock[r]>>}]
  /\ last' = <<"ViewChange", TRUE, r, v, lock[r]>>
  /\ UNCHANGED <<base, votes, commits, lock, floor, lost, silence>>

(* P11, P12: what may be the highest claim of a valid NEW-VIEW: a quorum claims nothing higher, and somebody claims it *)
ClaimsFor(r, v) == {x[2] : x \in {y \in claims[r] : y[1] = v}}
Shown(v) ==
  {x \in {None} \cup {y \in Certs : View(y) < v} :
     /\ Cardinality({r \in Replicas : \E y \in ClaimsFor(r, v) : ~IsHigher(y, x)}) >= Enough
     /\ HasLiars \/ \E r \in Replicas : x \in ClaimsFor(r, v)}
Enter(r, v) ==                                                                               \* P13: once
  /\ v > view[r] \/ (v = view[r] /\ ~active[r])
  /\ \E x \in Shown(v) :
       /\ base' = [base EXCEPT ![r] = BlockOf(x)]
       /\ last' = <<"Enter", TRUE, r, v, x>>
  /\ view' = [view EXCEPT ![r] = v] /\ active' = [active EXCEPT ![r] = TRUE]
  /\ UNCHANGED <<votes, commits, claims, lock, floor, lost, silence>>

(* P20: journal and ledger are gone. It is silent above all that it said: others told it, or the sign floor did. *)
Lose(r) ==
  LET said == votes[r] \cup commits[r]
      views == {x[1] : x \in said \cup claims[r]}
      heights == {Height(BlockOf(x)) : x \in said} \cup {0}
  IN /\ Cardinality({s \in Replicas : silence[s][1] # -1 \/ lost[s] # <<{}, {}>>}) < Losses /\ views # {}
     /\ lost' = [lost EXCEPT ![r] = <<votes[r], commits[r]>>]
     /\ silence' = IF Breaks("amnesia") THEN silence ELSE
          [silence EXCEPT ![r] = <<CHOOSE v \in views : \A w \in views : v >= w,
                                   CHOOSE h \in heights : \A g \in heights : h >= g>>]
     /\ view' = [view EXCEPT ![r] = 0] /\ active' = [active EXCEPT ![r] = TRUE] /\ base' = [base EXCEPT ![r] = Genesis]
     /\ lock' = [lock EXCEPT ![r] = None] /\ floor' = [floor EXCEPT ![r] = None]
     /\ last' = <<"Lose", ~Breaks("amnesia"), r>>
     /\ UNCHANGED <<votes, commits, claims>>

Next == \E r \in Replicas :
  \/ \E b \in Block : Prepare(r, b) \/ Commit(r, b)
  \/ \E x \in Finals : Apply(r, x)
  \/ \E v \in 1..Views : ViewChange(r, v) \/ Enter(r, v)
  \/ Lose(r)
Spec == Init /\ [][Next]_<<state, last>>

Agreement == \A x, y \in Finals : AreCompatible(BlockOf(x), BlockOf(y))
OneChain == \A x, y \in Certs : View(x) = View(y) => AreCompatible(BlockOf(x), BlockOf(y))
Extends == \A x \in Finals, y \in Certs : View(y) > View(x) => IsOnChain(BlockOf(x), BlockOf(y))
Prefixes == \A r, s \in Replicas : AreCompatible(BlockOf(floor[r]), BlockOf(floor[s]))     \* what was appended agrees
IsLawful == last[2]
NothingContinued == ~\E x, y \in Finals : View(x) < View(y) /\ Height(BlockOf(x)) < Height(BlockOf(y))
NothingSpokenAgain == ~\E r \in Replicas : lost[r] # <<{}, {}>> /\ silence[r][2] = -1 /\ Votes(r) # {}
=============================================================================
