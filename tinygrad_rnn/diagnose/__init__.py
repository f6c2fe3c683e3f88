"""Why does a recurrent network not train? Ways to look into one while it runs.

Read `observe.py` first (the steps of a model's recurrences, kept), then `naming.py`.
"""

from tinygrad_rnn.diagnose.draw import Drawing, draw_graph
from tinygrad_rnn.diagnose.observe import Observed, Operation, Step, observing

__all__ = ["Drawing", "Observed", "Operation", "Step", "draw_graph", "observing"]
