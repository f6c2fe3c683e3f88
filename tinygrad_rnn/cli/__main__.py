"""`python -m tinygrad_rnn.cli`: the command where its script is not on the path."""

from tinygrad_rnn.cli import main

main()
