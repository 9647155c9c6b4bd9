"""Results beside each other and beside what others published: ranks, ratios, the Pareto front, and every doubt by name.

    from joulemeter.comparison import choose, compare, of_result, of_row
    table = compare([of_result(measured)], [of_row(row) for row in choose(["mlperf-tiny:ic"]).rows])

work       what was inferred: which rows and results have the same model
amounts    the quantities that are compared, their units, and which end of each is the good one
entry      a result or a published row as one line of a comparison
published  which rows a pattern chooses
pair       two entries: their ratio, its interval, whether the difference is resolved, and what that rests on
ranking    ranks with ties, and the Pareto front of energy against latency
doubts     what is not alike
table      all of it
words      what every face says alike
"""

from __future__ import annotations

from joulemeter.comparison.entry import Entry, Origin, of_result, of_row
from joulemeter.comparison.published import choose
from joulemeter.comparison.table import Group, Placed, Table, compare

__all__ = ["Entry", "Group", "Origin", "Placed", "Table", "choose", "compare", "of_result", "of_row"]
