"""A character model, from text to text: `tinygrad-rnn train` and `sample` without a terminal.

Read `text.py` (characters as numbers), `baselines.py` (what counting alone can do), `model.py`,
`training.py`, `sampling.py`, in this order. The command line around it is `cli/`.
"""

from tinygrad_rnn.char_lm.baselines import Baselines, baselines
from tinygrad_rnn.char_lm.model import CELLS, CharLM
from tinygrad_rnn.char_lm.sampling import PromptError, check_prompt, generate
from tinygrad_rnn.char_lm.text import UNKNOWN, TextError, Vocabulary, python_text, read_text
from tinygrad_rnn.char_lm.training import (
    Row,
    Settings,
    Training,
    TrainingError,
    load_model,
    read_run,
)

__all__ = [
    "CELLS",
    "UNKNOWN",
    "Baselines",
    "CharLM",
    "PromptError",
    "Row",
    "Settings",
    "TextError",
    "Training",
    "TrainingError",
    "Vocabulary",
    "baselines",
    "check_prompt",
    "generate",
    "load_model",
    "python_text",
    "read_run",
    "read_text",
]
