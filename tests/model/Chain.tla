-------------------------------- MODULE Chain --------------------------------
(***************************************************************************)
(* Blocks, claims and quorums: the nouns of the models in this folder.     *)
(*                                                                         *)
(* A block is <<height, branch>>. All blocks below the height Fork are the *)
(* Trunk; from Fork upwards there are two branches. That is enough: if any *)
(* run commits two blocks that contradict each other, let Fork be the      *)
(* first height at which their chains differ, and paint every block by     *)
(* whether it descends from the first of the two or not. Painting keeps    *)
(* parents, heights and ranks, no guard of the protocol asks for two       *)
(* blocks to differ but for "one vote for one place", and equal votes stay *)
(* equal: the painted run is a run of this model that commits both         *)
(* branches. docs/model.md says more.                                      *)
(***************************************************************************)
EXTENDS Integers, FiniteSets
CONSTANTS
  Heights,   \* 1..Heights are voted on
  Fork,      \* the first height with two branches
  Trunk,     \* below it
  Branches   \* from it on: two model values

Genesis == <<0, Trunk>>
BranchesAt(h) == IF h < Fork THEN {Trunk} ELSE Branches
BlocksAt(h) == {<<h, b>> : b \in BranchesAt(h)}
Block == UNION {BlocksAt(h) : h \in 1..Heights}
Height(b) == b[1]
Ancestor(b, h) == <<h, IF h < Fork THEN Trunk ELSE b[2]>>
Parent(b) == Ancestor(b, Height(b) - 1)
IsOnChain(a, b) == Height(a) <= Height(b) /\ Ancestor(b, Height(a)) = a
AreCompatible(a, b) == IsOnChain(a, b) \/ IsOnChain(b, a)

(* A certificate or claim is <<view, block>>; what a quorum certified is a fact that anybody may come to know. *)
None == <<-1, Genesis>>
View(x) == x[1]
BlockOf(x) == x[2]
IsHigher(x, y) ==                                        \* P5, P12: by view, then height
  \/ View(x) > View(y)
  \/ View(x) = View(y) /\ Height(BlockOf(x)) > Height(BlockOf(y))
IsTaller(x, y) ==                                        \* the unsafe order: by height, then view
  \/ Height(BlockOf(x)) > Height(BlockOf(y))
  \/ Height(BlockOf(x)) = Height(BlockOf(y)) /\ View(x) > View(y)
Higher(x, y) == IF IsHigher(x, y) THEN x ELSE y
=============================================================================
