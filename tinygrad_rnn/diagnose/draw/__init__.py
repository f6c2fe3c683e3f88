"""Drawings of graphs: what was recorded behind a tensor, and the steps of recurrences.

Read diagram.py (boxes, arrows and regions as data), then where they come from: step.py, or
recorded.py, folding.py, opening.py and tensor_graph.py; then how they get places: ordering.py,
aligning.py and layout.py; then svg.py and dot.py. draw_graph.py is the entrance.
"""

from tinygrad_rnn.diagnose.draw.draw_graph import Drawing, draw_graph

__all__ = ["Drawing", "draw_graph"]
