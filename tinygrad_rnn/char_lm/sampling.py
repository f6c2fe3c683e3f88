"""How does a character model write? It reads the prompt, then, again and again, what it just wrote.

Each character costs the same however long the text is, because all that was read is in the state.
Read `model.py` before this file.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinygrad_rnn.char_lm.model import CharLM
from tinygrad_rnn.char_lm.text import Vocabulary
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.random import Generator
from tinygrad_rnn.tensor import Tensor


class PromptError(ValueError):
    """A prompt has a character that the model does not know; the message says which and where."""


def check_prompt(prompt: str, vocabulary: Vocabulary) -> None:
    """Raise PromptError for the first character of the prompt that is not in the vocabulary."""
    for place, character in enumerate(prompt, start=1):
        if character not in vocabulary:
            raise PromptError(
                f"the prompt's character {place}, {character!r} (U+{ord(character):04X}), does not "
                "occur, or hardly occurs, in the text that the model was trained on"
            )


@no_grad()
def generate(
    model: CharLM,
    vocabulary: Vocabulary,
    prompt: str,
    length: int,
    temperature: float = 1.0,
    generator: Generator | None = None,
) -> Iterator[str]:
    """The `length` characters that the model writes after `prompt`, each as soon as it is known.

    The next character is drawn with chance ∝ exp(logit / temperature): 1 is what the model
    believes, less is more cautious, 0 takes the likeliest. UNKNOWN is never drawn. An empty prompt
    stands for the beginning of a line.
    Raises PromptError for a character that is not in the vocabulary.
    """
    check_prompt(prompt, vocabulary)
    drawing = (generator or Generator()).numpy
    beginning = "\n" if "\n" in vocabulary else vocabulary.symbols[-1]
    step, state = model.streaming()
    for number in vocabulary.encode(prompt or beginning):
        logits, state = step(int(number), state)
    for _ in range(length):
        number = _draw(logits, temperature, drawing)
        yield vocabulary.symbols[number]
        logits, state = step(number, state)


def _draw(logits: Tensor, temperature: float, drawing: np.random.Generator) -> int:
    """A number from 1 on with chance ∝ exp(logit / temperature); 0, UNKNOWN, has none."""
    known = logits.numpy()[1:]  # (V - 1,)
    if temperature == 0:
        return 1 + int(known.argmax())
    weights = np.exp((known - known.max()) / temperature, dtype=np.float64)
    upto = weights.cumsum()
    return 1 + int(upto.searchsorted(drawing.random() * upto[-1], "right"))
