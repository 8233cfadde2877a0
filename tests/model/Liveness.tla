------------------------------- MODULE Liveness -------------------------------
(***************************************************************************)
(* That everything is committed once the network calms: two views, the     *)
(* first with a faulty primary, the second with a correct one (P1 to P16). *)
(*                                                                         *)
(* View 0 has left behind whatever it may (Layered.tla): certificates up   *)
(* to some height of one branch, replicas that are locked and have         *)
(* committed up to different heights, or not at all. From there the        *)
(* patience of all ends (P8), and view 1 begins.                           *)
(*                                                                         *)
(* Fairness is what network and timers promise once they are calm: what    *)
(* all three correct validators said is heard by each; what needs the      *)
(* faulty one may happen, or not. Nobody's patience ends in view 1.        *)
(***************************************************************************)
EXTENDS Chain, TLC
CONSTANTS
  Replicas,  \* the correct ones: three, and one is faulty
  Primary,   \* of view 1, a correct one
  Second,    \* the other two
  Third,
  Left,      \* the branch that view 0 certified
  Right,     \* another one, which the primary of view 1 begins if it must build on the genesis
  Variant    \* "live", or the rule that is missing

VARIABLES
  certified,  \* the height up to which there are certificates of view 0
  changed,    \* who has sent its VIEW-CHANGE
  claimed,    \* with which claim
  shown,      \* the highest claim of the NEW-VIEW
  entered,    \* who has entered view 1
  proposed,   \* the blocks that its primary has proposed
  votes, commits,  \* what was said in view 1; and in view 0, of commits
  lock, floor
vars == <<certified, changed, claimed, shown, entered, proposed, votes, commits, lock, floor>>

Lacks(rule) == Variant = rule
Enough == 2                                      \* correct votes that make a quorum with the faulty one
All == Cardinality(Replicas)                     \* and without
NoTip == <<-2, Genesis>>
First(h) == IF h = 0 THEN None ELSE <<0, Ancestor(<<Heights, Left>>, h)>>

Said(said, n) == {x \in UNION {said[r] : r \in Replicas} : Cardinality({r \in Replicas : x \in said[r]}) >= n}
Floor(r) == Height(BlockOf(floor[r]))
Init ==
  /\ certified \in 0..Heights
  /\ \E locks \in [Replicas -> 0..certified] :
       /\ lock = [r \in Replicas |-> First(locks[r])]
       /\ commits = [r \in Replicas |-> {First(h) : h \in 1..locks[r]}]
       /\ \E floors \in [Replicas -> 0..certified] :
            /\ \A r \in Replicas : floors[r] > 0 => First(floors[r]) \in Said(commits, Enough)
            /\ floor = [r \in Replicas |-> First(floors[r])]
            /\ <<locks[Second], floors[Second]>> \in {<<l, f>> : l \in locks[Third]..certified, f \in 0..certified}
            /\ locks[Second] = locks[Third] => floors[Second] >= floors[Third]    \* they are interchangeable
  /\ changed = {} /\ entered = {} /\ proposed = {} /\ shown = NoTip
  /\ claimed = [r \in Replicas |-> NoTip]
  /\ votes = [r \in Replicas |-> {}]

(* P8 to P10: patience ends while there is work, or two others have lost theirs *)
ViewChange(r) ==
  /\ r \notin changed \cup entered
  /\ Floor(r) < Heights \/ Cardinality(changed) > 1
  /\ changed' = changed \cup {r}
  /\ claimed' = [claimed EXCEPT ![r] = Higher(floor[r], lock[r])]
  /\ UNCHANGED <<certified, shown, entered, proposed, votes, commits, lock, floor>>

(* P12: of the claims of a quorum, with or without the faulty one, the highest *)
NewView(n) ==
  /\ shown = NoTip /\ Primary \in changed
  /\ \E quorum \in {s \in SUBSET changed : Cardinality(s) >= n} :
     \E lie \in {None} \cup (IF n = All THEN {} ELSE {First(h) : h \in 1..certified}) :
       \E x \in {claimed[r] : r \in quorum} \cup {lie} :
         /\ \A y \in {claimed[r] : r \in quorum} \cup {lie} : ~IsHigher(y, x)
         /\ shown' = x
  /\ UNCHANGED <<certified, changed, claimed, entered, proposed, votes, commits, lock, floor>>

(* P13: the tip is prepared again, where it is not committed yet *)
Tip == BlockOf(shown)
Enter(r) ==
  /\ shown # NoTip /\ r \notin entered
  /\ entered' = entered \cup {r}
  /\ votes' = IF Height(Tip) > Floor(r) /\ ~Lacks("P13") THEN [votes EXCEPT ![r] = {<<1, Tip>>}] ELSE votes
  /\ UNCHANGED <<certified, changed, claimed, shown, proposed, commits, lock, floor>>

Prepared(r) == {BlockOf(x) : x \in votes[r]}
(* P1: the next block on the highest accepted one, else on the tip if that is committed, else on the committed block *)
Propose ==
  /\ Primary \in entered
  /\ \E head \in Prepared(Primary) \cup {BlockOf(floor[Primary])} :
       /\ \A b \in Prepared(Primary) \cup {BlockOf(floor[Primary])} : Height(b) <= Height(head)
       /\ Height(Tip) <= Height(head) /\ Height(head) < Heights
       /\ \A b \in proposed : Height(b) <= Height(head)
       /\ proposed' = proposed \cup {IF head = Genesis THEN <<1, Right>> ELSE <<Height(head) + 1, head[2]>>}
  /\ UNCHANGED <<certified, changed, claimed, shown, entered, votes, commits, lock, floor>>

(* P2 to P4: what the primary proposes on what was accepted or committed *)
Prepare(r, b) ==
  /\ r \in entered /\ Height(b) > Floor(r) /\ <<1, b>> \notin votes[r]
  /\ b \in proposed /\ (Parent(b) \in Prepared(r) \/ Parent(b) = BlockOf(floor[r]))
  /\ votes' = [votes EXCEPT ![r] = @ \cup {<<1, b>>}]
  /\ UNCHANGED <<certified, changed, claimed, shown, entered, proposed, commits, lock, floor>>

Commit(r, x) ==                                                                      \* P5, P6
  /\ r \in entered /\ x \notin commits[r] /\ Height(BlockOf(x)) > Floor(r)
  /\ commits' = [commits EXCEPT ![r] = @ \cup {x}]
  /\ lock' = [lock EXCEPT ![r] = Higher(x, @)]
  /\ UNCHANGED <<certified, changed, claimed, shown, entered, proposed, votes, floor>>

(* P7; P16: who has applied it shows the certificate to those behind *)
Apply(r, x) ==
  /\ Height(BlockOf(x)) > Floor(r)
  /\ floor' = [floor EXCEPT ![r] = x]
  /\ UNCHANGED <<certified, changed, claimed, shown, entered, proposed, votes, commits, lock>>
IsRepeated(x) == ~Lacks("P16") /\ \E r \in Replicas : floor[r] = x

Next ==
  \/ \E r \in Replicas :
       \/ ViewChange(r) \/ Enter(r)
       \/ \E b \in Block : Prepare(r, b)
       \/ \E x \in Said(votes, Enough) : Commit(r, x)
       \/ \E x \in Said(commits, Enough) : Apply(r, x)
  \/ NewView(Enough) \/ Propose

Fairness ==
  /\ WF_vars(NewView(All)) /\ WF_vars(Propose)
  /\ \A r \in Replicas :
       /\ WF_vars(ViewChange(r)) /\ WF_vars(Enter(r))
       /\ WF_vars(\E b \in Block : Prepare(r, b))
       /\ WF_vars(\E x \in Said(votes, All) : Commit(r, x))
       /\ WF_vars(\E x \in Said(commits, Enough) : (x \in Said(commits, All) \/ IsRepeated(x)) /\ Apply(r, x))
Spec == Init /\ [][Next]_vars /\ Fairness

Agreement == \A x, y \in Said(commits, Enough) : AreCompatible(BlockOf(x), BlockOf(y))
EverythingIsCommitted == <>(\A r \in Replicas : Floor(r) = Heights)
=============================================================================
