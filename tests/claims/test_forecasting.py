"""Chapter 13: nothing of the future is used, errors are scaled right; who beats whom, and when."""

import forecasting
import numpy as np
import pytest
from click.testing import CliRunner
from forecasting import FOLDER, HORIZON, METHODS, Series

import tinygrad_rnn as torch


def forecast(name, series, updates=5):
    torch.manual_seed(0)
    small = {"units": 8, "updates": updates} if name.startswith("GRU") else {}
    return METHODS[name](series, **small)


@pytest.fixture(scope="module")
def series():
    return forecasting.trend_and_season()


@pytest.mark.parametrize("at", [0, 20])
@pytest.mark.parametrize("name", METHODS)
def test_a_forecast_uses_nothing_of_what_comes_after_its_origin(name, at, series):
    changed = series.values.copy()
    changed[series.origins[at] :] *= -3
    before, after = (forecast(name, s) for s in (series, series._replace(values=changed)))
    assert before.shape == (len(series.origins), HORIZON)
    np.testing.assert_array_equal(before[: at + 1], after[: at + 1])
    assert np.abs(before[at + 1] - after[at + 1]).max() > 0.1


def test_scaling_knows_the_training_part_alone(series):
    known = series.values[: series.split]
    scale = forecasting.train(known, units=4, updates=1)[1]
    assert scale == pytest.approx((known.mean(), known.std()))
    assert scale.mean < series.values.mean() - 5  # which leaks where the series will go


def test_errors_in_units_of_the_seasonal_naive_by_hand():
    series = Series("squares", np.arange(30.0) ** 2, season=12, split=18)
    assert list(series.origins) == [18]
    unit = np.mean([144, 168, 192, 216, 240, 264])  # k² - (k - 12)² for k = 12 … 17
    found = forecasting.scaled_errors(series, forecasting.one_season_ago(series))
    np.testing.assert_allclose(found * unit, [24 * k - 144 for k in range(18, 30)])
    found = forecasting.scaled_errors(series, forecasting.last_value(series))
    np.testing.assert_allclose(found * unit, [k**2 - 17**2 for k in range(18, 30)])


def test_the_autoregression_finds_a_linear_law():
    series = Series.of("wave", np.sin(0.3 * np.arange(200)) + 5, season=21)
    assert forecasting.scaled_errors(series, forecasting.autoregression(series)).max() < 1e-6


def test_gaps_of_the_carbon_dioxide_are_filled_and_weeks_are_averaged(tmp_path):
    weeks = "19580329,300\n19580405,310\n19580412,\n19580419,314\n19580503,\n19580607,318\n"
    (tmp_path / "co2_maunaloa_weekly.csv").write_text("date,co2\n" + weeks, encoding="utf-8")
    assert forecasting.carbon_dioxide(tmp_path).values.tolist() == [300, 312, 315, 318]


def mase(series, name, seed=0):
    torch.manual_seed(seed)
    learns = {"units": 16, "updates": 250} if name.startswith("GRU") else {}
    return forecasting.scaled_errors(series, METHODS[name](series, **learns)).mean()


def test_on_a_chaotic_series_the_network_beats_the_linear_model_by_far():
    series = forecasting.mackey_glass()
    assert mase(series, "autoregression") < mase(series, "one season ago")
    assert mase(series, "GRU on values") < mase(series, "autoregression") / 2


def test_on_a_rising_series_the_network_loses_to_the_naive_forecast_unless_it_gets_differences():
    series = forecasting.trend_and_season()
    naive, linear = mase(series, "one season ago"), mase(series, "autoregression")
    assert linear < 0.6 * naive
    for seed in range(2):
        assert mase(series, "GRU on values", seed) > 1.2 * naive
        assert mase(series, "GRU on differences", seed) < 0.8 * naive


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the measured series are not there")
def test_the_measured_series_are_read():
    sizes = {s.name: (len(s.values), s.values[0]) for s in forecasting.all_series(FOLDER)[2:]}
    assert sizes["airline passengers"] == (144, 112)
    assert sizes["sunspots"] == (3126, 58.0)
    assert sizes["carbon dioxide"] == (526, 316.1)


def test_the_command_forecasts_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    values = "\n".join(f'"1949-{k:02d}",{100 + k * k % 97}' for k in range(144))
    (tmp_path / "airline-passengers.csv").write_text(f"Month,Passengers\n{values}\n", "utf-8")
    days = [f"{1958 + k // 12}{k % 12 + 1:02d}01,{300 + k * k % 97}" for k in range(144)]
    (tmp_path / "co2_maunaloa_weekly.csv").write_text("date,co2\n" + "\n".join(days), "utf-8")
    years = [
        f"{1749 + k} " + " ".join(f"{(k + m) ** 2 % 97}" for m in range(12)) for k in range(80)
    ]
    (tmp_path / "sunspots_monthly.dat").write_text("\n".join(years), "utf-8")
    figure = tmp_path / "figure.svg"
    options = f"--folder {tmp_path} --seeds 1 --units 4 --updates 3 --figure {figure}"
    shown = CliRunner().invoke(forecasting.main, options.split(), catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("GRU on differences") == 5
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
