"""How tests run a command of `tinygrad-rnn`, and a text for it to learn."""

from click.testing import CliRunner

from tinygrad_rnn.cli import main

TEXT = "나랏말싸미 듕귁에 달아, and the quick brown fox runs away.\n" * 60


def tinygrad(*arguments, status=0):
    """What a command gives, run in this process: click's Result, with all that was shown."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result
