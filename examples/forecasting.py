"""Chapter 13: the next twelve values of a series, by a GRU and by what it has to beat.

    python examples/forecasting.py [--folder FOLDER] [--seeds 3] [--units 32] [--updates 400]

The first four fifths of each series are learnt from. At every step of the last fifth the next
twelve values are forecast from all that came before. To beat: the last value, the value one season
ago, and a linear autoregression by least squares. Two series are generated; airline passengers,
sunspots and carbon dioxide are added where FOLDER has them. It takes about two minutes.
"""

from __future__ import annotations

import csv
import re
import shlex
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import panels, program, progress, write_record
from numpy.typing import NDArray

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.optim.lr_scheduler import CosineAnnealingLR

Array = NDArray[np.float64]

HORIZON = 12  # values forecast at once
ORDER = 24  # values that the autoregression looks at
WINDOW = 60  # values in a training sequence of the GRU ...
WARM_UP = 12  # ... and for how many of them its forecasts do not count
FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "timeseries"


class Series(NamedTuple):
    """Values at equal distances in time; those before `split` are known, the others the test."""

    name: str
    values: Array  # (n,)
    season: int  # steps after which it roughly repeats; not below HORIZON
    split: int

    @classmethod
    def of(cls, name: str, values: Any, season: int) -> Series:
        """A series whose last fifth is the test."""
        return cls(name, np.asarray(values, np.float64), season, round(0.8 * len(values)))

    @property
    def origins(self) -> range:
        """The places t in the test part at which values[t : t + HORIZON] are forecast."""
        return range(self.split, len(self.values) - HORIZON + 1)


def trend_and_season(length: int = 240) -> Series:
    """A line, a yearly wave, and noise that fades by a fifth a month. All of it is linear."""
    t, shocks = np.arange(length), np.random.default_rng(0).normal(size=length)
    noise = np.zeros(length)
    for k in range(1, length):
        noise[k] = 0.8 * noise[k - 1] + shocks[k]
    wave = 10 * np.sin(2 * np.pi * t / 12) + 4 * np.cos(4 * np.pi * t / 12)
    return Series.of("trend and season", 50 + 0.3 * t + wave + noise, season=12)


def mackey_glass(length: int = 600) -> Series:
    """dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t), every third unit of time.

    Mackey and Glass, 1977: chaotic, without noise. By Euler's method in steps of 0.1.
    """
    lag, skipped = 170, 3000
    x = np.full(lag + skipped + 30 * length, 1.2)
    for k in range(lag, len(x) - 1):
        past = x[k - lag]
        x[k + 1] = x[k] + 0.1 * (0.2 * past / (1 + past**10) - 0.1 * x[k])
    return Series.of("Mackey-Glass", x[lag + skipped :: 30], season=16)


def table_of(path: Path) -> list[list[str]]:
    """The rows of a file of comma-separated values, without its heading."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def airline(folder: Path) -> Series:
    """Passengers of airlines by month, in thousands, 1949 to 1960 (Box and Jenkins)."""
    rows = table_of(folder / "airline-passengers.csv")
    return Series.of("airline passengers", [float(row[1]) for row in rows], season=12)


def sunspots(folder: Path) -> Series:
    """Monthly mean sunspot numbers since 1749; a cycle lasts about eleven years."""
    lines = (folder / "sunspots_monthly.dat").read_text(encoding="utf-8").splitlines()
    years = [line.split()[1:] for line in lines if re.match(r"\d{4} ", line)]
    return Series.of("sunspots", [float(x) for year in years for x in year], season=132)


def carbon_dioxide(folder: Path) -> Series:
    """CO2 at Mauna Loa in parts per million: means of each month's weeks, gaps filled by a line."""
    found, places = [], []
    rows = table_of(folder / "co2_maunaloa_weekly.csv")
    for month, weeks in groupby(rows, key=lambda row: row[0][:6]):
        values = [float(week[1]) for week in weeks if week[1]]
        if values:
            found.append(np.mean(values))
            places.append(12 * int(month[:4]) + int(month[4:]))
    every = np.arange(places[0], places[-1] + 1)
    return Series.of("carbon dioxide", np.interp(every, places, found), season=12)


def all_series(folder: Path | None) -> list[Series]:
    """The two that are generated, and those of the folder."""
    generated = [trend_and_season(), mackey_glass()]
    read = [airline, sunspots, carbon_dioxide] if folder else []
    return generated + [each(folder) for each in read]


# Each of the following gives forecasts (origins, HORIZON): row t uses nothing from values[t] on.


def last_value(series: Series) -> Array:
    """y_{t+h} = y_{t-1}: all stays as it is."""
    return np.array([np.full(HORIZON, series.values[t - 1]) for t in series.origins])


def one_season_ago(series: Series) -> Array:
    """y_{t+h} = y_{t+h-season}: the seasonal naive forecast."""
    before = [t - series.season for t in series.origins]
    return np.array([series.values[t : t + HORIZON] for t in before])


def autoregression(series: Series) -> Array:
    """y_{t+h} = b_h + Σ_k w_hk y_{t-k}, k = 1 … ORDER: least squares, for each h by itself."""

    def seen(t: int) -> Array:
        return np.append(series.values[t - ORDER : t], 1)

    fitted = range(ORDER, series.split - HORIZON + 1)
    inputs = np.array([seen(t) for t in fitted])
    targets = np.array([series.values[t : t + HORIZON] for t in fitted])
    weights = np.linalg.lstsq(inputs, targets, rcond=None)[0]  # (ORDER + 1, HORIZON)
    return np.array([seen(t) for t in series.origins]) @ weights


class Forecaster(nn.Module):
    """After every value: a guess at each of the next HORIZON values."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(1, units)
        self.output = nn.Linear(units, HORIZON)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(T, B, 1) values -> (T, B, HORIZON), whatever T is."""
        hs, _ = self.recurrent(values)
        return self.output(hs)


class Scale(NamedTuple):
    """What makes values about as large as a network likes them."""

    mean: float
    deviation: float


def scale_of(known: Array) -> Scale:
    """Of the values that may be known: of the training part, not of the whole series."""
    return Scale(known.mean(), known.std())


def train(known: Array, units: int, updates: int) -> tuple[Forecaster, Scale]:
    """A network that has seen 32 random windows of the training part in each update."""
    scale = scale_of(known)
    values = torch.tensor((known - scale.mean) / scale.deviation, dtype=torch.float32)
    model = Forecaster(units)
    optimizer = Adam(model.parameters(), lr=0.01)
    schedule = CosineAnnealingLR(optimizer, updates)
    ahead = torch.arange(1, HORIZON + 1)
    for _ in progress(range(updates), "training"):
        start = torch.randint(0, len(values) - WINDOW - HORIZON + 1, (32,))
        places = torch.arange(WINDOW)[:, None] + start  # (T, B)
        guesses = model(values[places][..., None])
        targets = values[places[..., None] + ahead]  # (T, B, HORIZON)
        loss = F.l1_loss(guesses[WARM_UP:], targets[WARM_UP:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model, scale


def gru_on_values(series: Series, units: int, updates: int) -> Array:
    """The network reads the values; at an origin it has read all that came before."""
    model, scale = train(series.values[: series.split], units, updates)
    values = torch.tensor((series.values - scale.mean) / scale.deviation, dtype=torch.float32)
    with torch.no_grad():
        guesses = model(values[:, None, None])[:, 0].numpy()  # (n, HORIZON)
    before = [t - 1 for t in series.origins]
    return guesses[before] * scale.deviation + scale.mean


def gru_on_differences(series: Series, units: int, updates: int) -> Array:
    """The network reads y_t - y_{t-season} and forecasts it; what was a season ago is added."""
    _, values, season, split = series
    differences = Series("", values[season:] - values[:-season], season, split - season)
    return one_season_ago(series) + gru_on_values(differences, units, updates)


def scaled_errors(series: Series, forecasts: Array) -> Array:
    """MASE by steps ahead, (HORIZON,): mean |error|, over that of `one_season_ago` in training.

    Hyndman and Koehler, 2006, divide by the error of the last value; for seasonal series the value
    a season ago has become usual (Hyndman and Athanasopoulos, Forecasting, 2021, section 5.8).
    """
    true = np.array([series.values[t : t + HORIZON] for t in series.origins])
    known = series.values[: series.split]
    unit = np.abs(known[series.season :] - known[: -series.season]).mean()
    return np.abs(forecasts - true).mean(0) / unit


METHODS = {
    "last value": last_value,
    "one season ago": one_season_ago,
    "autoregression": autoregression,
    "GRU on values": gru_on_values,
    "GRU on differences": gru_on_differences,
}
COLORS = dict(zip(METHODS, ("silver", "gray", "tab:blue", "tab:red", "tab:orange"), strict=True))


class Run(NamedTuple):
    """What every method made of a series. Methods without random numbers have one seed."""

    series: Series
    forecasts: dict[str, list[Array]]  # by method and seed, (origins, HORIZON)

    def errors(self) -> dict[str, list[list[float]]]:
        """MASE by method, seed and steps ahead."""
        return {
            name: [scaled_errors(self.series, each).tolist() for each in several]
            for name, several in self.forecasts.items()
        }


def compare(series: Series, seeds: int, units: int, updates: int) -> Run:
    """The forecasts of all methods."""
    forecasts = {}
    for name, method in METHODS.items():
        if name.startswith("GRU"):
            forecasts[name] = [method(series, units, updates) for _ in range(seeds)]
        else:
            forecasts[name] = [method(series)]
    return Run(series, forecasts)


def table(name: str, errors: dict[str, list[list[float]]]) -> str:
    """A line for each method: MASE over all twelve steps, of the best and the worst seed."""
    lines = [f"{name:20}  MASE          one step   twelve steps"]
    for method, several in errors.items():
        means = np.mean(several, axis=1)
        spread = "" if len(means) == 1 else f" to {means.max():.2f}"
        ahead = np.mean(several, axis=0)
        lines.append(
            f"  {method:18}  {means.min():.2f}{spread:8} {ahead[0]:9.2f} {ahead[-1]:13.2f}"
        )
    return "\n".join(lines)


def draw(runs: list[Run]) -> Any:
    """For each series: its test part with forecasts made once a year, and MASE by steps ahead."""
    figure, axes = panels(rows=len(runs), columns=2, width=10, height=3)
    for (series, forecasts), (left, right) in zip(runs, np.reshape(axes, (-1, 2)), strict=True):
        shown = range(series.split - 24, min(series.split + 144, len(series.values)))
        left.plot(shown, series.values[shown], color="black", label="true", linewidth=1)
        for name in ("autoregression", "GRU on values", "GRU on differences"):
            for k in range(0, min(144, len(series.origins)), HORIZON):
                t = series.origins[k]
                label = name if k == 0 else None
                left.plot(
                    range(t, t + HORIZON), forecasts[name][0][k], color=COLORS[name], label=label
                )
        left.axvline(series.split - 0.5, color="black", linestyle=":")
        left.set(xlabel="step", ylabel=series.name)
        ahead = range(1, HORIZON + 1)
        for name, several in Run(series, forecasts).errors().items():
            for each in several:
                label = name if each is several[0] else None
                right.plot(ahead, each, "o-", color=COLORS[name], label=label, markersize=3)
        right.set(xlabel="steps ahead", ylabel="MASE")
        right.set_ylim(bottom=0)
    handles = [left.get_lines()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, frameon=False)
    return figure


def draw_record(found: dict[str, dict[str, list[list[float]]]]) -> Any:
    """MASE over all twelve steps, by series and method, a point for each seed."""
    figure, axes = panels(height=3.4)
    for place, errors in enumerate(found.values()):
        for offset, (name, several) in enumerate(errors.items()):
            x = place + (offset - 2) / 8
            label = name if place == 0 else None
            y = np.mean(several, axis=1)
            axes.plot([x] * len(y), y, "o", color=COLORS[name], markersize=5, label=label)
    axes.axhline(1, color="black", linestyle=":")
    axes.set_yscale("log")
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.set_xticks(range(len(found)), found)
    axes.set_ylabel("MASE")
    figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    return figure


@program
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=FOLDER if FOLDER.is_dir() else None,
    help="Has airline-passengers.csv, sunspots_monthly.dat and co2_maunaloa_weekly.csv.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--units", default=32, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=400, show_default=True, type=click.IntRange(min=1))
@click.option("--write", is_flag=True, help="Keep the errors in docs/results/.")
def main(
    folder: Path | None, seeds: int, units: int, updates: int, write: bool
) -> Callable[[], Any]:
    """Forecast every series in every way, and print how large the errors are."""
    runs = []
    for series in all_series(folder):
        runs.append(compare(series, seeds, units, updates))
        print(table(series.name, runs[-1].errors()))
    if write:
        errors = {run.series.name: run.errors() for run in runs}
        print(write_record("forecasting", shlex.join(["python", *sys.argv]), errors))
    return lambda: draw(runs)


if __name__ == "__main__":
    main()
