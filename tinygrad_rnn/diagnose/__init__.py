"""Why does a recurrent network not train? Ways to look into one while it runs.

Read `observe.py` first (the steps of a model's recurrences, kept), then `naming.py`; then what you
came for: `gradient_flow.py` (how far gradients reach), `explain_nan.py` (where the first NaN was
made), `draw/` (the graph, to look at), `summary.py` (what a model holds and costs), `profile.py`
(where its time goes).
"""

from tinygrad_rnn.diagnose.draw import Drawing, draw_graph
from tinygrad_rnn.diagnose.errors import DiagnosisError
from tinygrad_rnn.diagnose.explain_nan import explain_nan
from tinygrad_rnn.diagnose.finding import Explanation, Finding
from tinygrad_rnn.diagnose.flow import Flow, Saturation
from tinygrad_rnn.diagnose.gradient_flow import GradientFlow, gradient_flow
from tinygrad_rnn.diagnose.jacobians import Spectrum
from tinygrad_rnn.diagnose.observe import Observed, Operation, Step, observing
from tinygrad_rnn.diagnose.profile import Row as ProfileRow
from tinygrad_rnn.diagnose.profile import profile
from tinygrad_rnn.diagnose.summary import Row as SummaryRow
from tinygrad_rnn.diagnose.summary import Summary, summary
from tinygrad_rnn.diagnose.verdicts import Verdict

__all__ = [
    "DiagnosisError",
    "Drawing",
    "Explanation",
    "Finding",
    "Flow",
    "GradientFlow",
    "Observed",
    "Operation",
    "ProfileRow",
    "Saturation",
    "Spectrum",
    "Step",
    "Summary",
    "SummaryRow",
    "Verdict",
    "draw_graph",
    "explain_nan",
    "gradient_flow",
    "observing",
    "profile",
    "summary",
]
