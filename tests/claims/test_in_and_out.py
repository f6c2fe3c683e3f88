"""Chapter 2: each form learns a task that has it; none can answer what it has not read yet."""

import math

import in_and_out
import pytest
from click.testing import CliRunner

import tinygrad_rnn as torch

FORMS = in_and_out.FORMS
OPTIONS = {"layer": "GRU", "units": 64, "updates": 200}
READING_FIRST = "many to many, reading first"


@pytest.fixture(scope="module")
def numbers():
    torch.manual_seed(0)
    return in_and_out.split_numbers()


@pytest.fixture(scope="module")
def trained(numbers):
    torch.manual_seed(1)
    return {name: in_and_out.train_form(form, numbers, **OPTIONS) for name, form in FORMS.items()}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_learns_and_is_right_about_unseen_examples(name, trained):
    run, guess = trained[name]
    assert run.losses[-1] < guess.loss / 10
    assert run.right > guess.right + 0.2


@pytest.mark.parametrize("name", FORMS)
def test_an_untrained_net_is_no_better_than_a_guess(name, numbers):
    torch.manual_seed(2)
    form = FORMS[name]
    seen, unseen = (form.task(each) for each in numbers)
    model, guess = form.model("GRU", 64), in_and_out.guess(seen, unseen)
    assert in_and_out.loss_of(model, seen).item() > guess.loss
    answers = model(unseen.inputs[0]).argmax(-1)
    assert in_and_out.share_right(answers, unseen.targets) <= guess.right + 0.2


def test_translating_letter_by_letter_comes_near_its_bound_and_not_below(numbers, trained):
    torch.manual_seed(3)
    run, _ = in_and_out.train_form(in_and_out.LETTER_BY_LETTER, numbers, **OPTIONS)
    least = in_and_out.least_loss_letter_by_letter(numbers[0])
    assert least < min(run.losses) < 1.3 * least
    assert trained[READING_FIRST][0].losses[-1] < least / 5


def test_the_bound_counts_what_cannot_be_known_yet():
    bound = in_and_out.least_loss_letter_by_letter
    assert bound([2]) == 0
    # two, three -> zwei, drei: after the t it can be z or d; after tw and th all is clear.
    assert bound([2, 3]) == pytest.approx(math.log(2) / in_and_out.LONGEST)
    assert bound([6, 7]) == 0  # six, seven -> sechs, sieben: both begin with s


def test_only_reading_first_lets_the_last_letter_change_the_first_answer():
    torch.manual_seed(4)
    name, other = (in_and_out.to_read([name]) for name in ("forty-two", "forty-twx"))
    aligned = in_and_out.Aligned("GRU", 8)
    assert torch.equal(aligned(name)[:-1], aligned(other)[:-1])
    reading_first = in_and_out.EncoderDecoder("GRU", 8)
    assert not torch.allclose(reading_first(name)[0], reading_first(other)[0])


def test_a_writer_told_its_own_letters_scores_as_when_it_writes_by_itself():
    torch.manual_seed(5)
    writer, state = in_and_out.Writer("GRU", 32), torch.randn(1, 7, 32)
    alone = writer(state)
    told = writer(state, alone.argmax(-1))
    assert torch.allclose(alone, told, atol=1e-5)
    assert not torch.allclose(alone, writer(state, alone.argmax(-1).flip(0)), atol=1e-2)


def test_the_best_guess_is_the_entropy_at_each_place():
    targets = torch.tensor([[1, 1, 1, 2], [3, 3, 4, 4]])  # (T, B)
    task = in_and_out.Task((targets,), targets)
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    found = in_and_out.guess(task, task)
    assert found.loss == pytest.approx((quarter + math.log(2)) / 2, rel=1e-5)
    assert found.right == 0.5  # 1 3 is the most frequent answer, of the first two


def test_names_are_spelled_as_in_a_dictionary():
    english = ["zero", "thirteen", "twenty", "forty-two"]
    assert [in_and_out.english(n) for n in (0, 13, 20, 42)] == english
    german = ["null", "eins", "siebzehn", "dreißig", "einundzwanzig", "siebenundsiebzig"]
    assert [in_and_out.german(n) for n in (0, 1, 17, 30, 21, 77)] == german
    assert len({in_and_out.german(n) for n in range(100)}) == 100
    assert max(len(in_and_out.german(n)) for n in range(100)) == in_and_out.LONGEST - 1


def test_the_command_prints_a_table_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "forms.png"
    options = ["--updates", "10", "--units", "4", "--layer", "RNN", "--figure", str(figure)]
    result = CliRunner().invoke(in_and_out.main, options)
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in FORMS)
    assert figure.stat().st_size > 10_000
    assert CliRunner().invoke(in_and_out.main, ["--layer", "LSTM"]).exit_code == 2
