"""What is raised when a run showed what must never be, and the bounds that a run is held to."""

VIEWS_KEPT = 8
"""Views above and below its own for which a replica keeps votes (P23)."""


class InvariantBroken(AssertionError):
    """The run showed what must never be; the text begins with the invariant of docs/testing.md."""


def liveness_bound_ms(f: int, timeout_ms: int, delay_max_ms: int, slack_ms: int = 0) -> int:
    """I9: within this after healing every correct node executes a fresh transaction.

    (f + 2) views at most are needed, each of which may wait for its whole timeout and for six messages in a row.
    `timeout_ms` is the longest that any node has backed off to when the network heals, since that one must run out
    first; `slack_ms` what the harness adds itself (messages under way from before, nodes that have just started).
    """
    return (f + 2) * (timeout_ms + 6 * delay_max_ms) + slack_ms


def statements_kept_max(n: int, window: int) -> int:
    """I10, P23: how many statements of others a replica may hold.

    Two PREPAREs and two COMMITs of each author for each height of the window and each view kept, one PRE-PREPARE for
    each height and each view from the current one, and one VIEW-CHANGE of each.
    """
    views = 2 * VIEWS_KEPT + 1
    return 2 * 2 * n * window * views + window * (VIEWS_KEPT + 1) + n


def views_bound(f: int, heights: int) -> int:
    """I13: views that may be entered while a healed network commits this many heights.

    At most f + 1 primaries in a row are faulty, so f + 2 views for each height, and as many for the one under way and
    for those that nodes had asked for when the network healed.
    """
    return (f + 2) * (heights + 2)
