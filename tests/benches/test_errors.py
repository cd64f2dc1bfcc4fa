"""The comparison of errors: what it draws, how it judges, what it writes down."""

import dataclasses
import json
import math
import platform
import sys

import pytest
import torch
from benches.errors import __main__ as command
from benches.errors.summary import FEW, Outcome, by_option, by_result
from benches.errors.trial import Draw, Ratio, compare, kind, ratios
from benches.machine import processor


@pytest.fixture(autouse=True)
def one_thread():
    """As the command has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(count, seed, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, generator=generator, dtype=torch.float64)


def test_ratios_are_those_of_norms():
    truth = noise(1000, seed=0)
    once, twice = truth + noise(1000, 1, 1e-6), truth + noise(1000, 1, 2e-6)
    assert compare(twice, once, truth)[0] == pytest.approx(2.0)
    assert compare(truth, truth, truth)[0] == 1.0
    assert compare(once, truth, truth)[0] == math.inf
    assert compare(truth, once, truth)[0] == 0.0


def test_chance_is_what_equal_errors_differ_by():
    truth = torch.zeros(400, dtype=torch.float64)
    found = [compare(noise(400, 2 * seed), noise(400, 2 * seed + 1), truth) for seed in range(300)]
    logarithms = torch.tensor([math.log(ratio) for ratio, _ in found])
    assert torch.tensor([chance for _, chance in found]).mean() == pytest.approx(0.05, rel=0.05)
    assert logarithms.std() == pytest.approx(0.05, rel=0.15)


def test_errors_that_lie_in_few_numbers_are_few():
    truth = torch.zeros(10000, dtype=torch.float64)
    large = torch.ones(10000, dtype=torch.float64)
    large[:20] = 1e4
    _, chance = compare(noise(10000, 0) * large, noise(10000, 1) * large, truth)
    assert chance > 0.1
    _, chance = compare(noise(10000, 0), noise(10000, 1), truth, sources=4)
    assert chance == 0.5


def test_layers_and_directions_are_one_result():
    assert kind("gradient of weight_hh_l0") == kind("gradient of weight_hh_l2_reverse")
    assert kind("output") == "output"


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("dtype", command.TYPES)
@pytest.mark.parametrize("operator", command.OPERATORS)
def test_trials_compare_every_result(operator, dtype):
    for seed in range(2):
        trial = command.OPERATORS[operator](Draw(seed), command.TYPES[dtype])
        again = command.OPERATORS[operator](Draw(seed), command.TYPES[dtype])
        assert trial.told == again.told
        for name, operand in trial.operands.items():
            assert torch.equal(operand, again.operands[name])
        assert all(operand.dtype == command.TYPES[dtype] for operand in trial.operands.values())
        found = {ratio.result: ratio for ratio in ratios(trial)}
        assert {kind(f"gradient of {name}") for name in trial.operands} <= found.keys()
        assert {"output", "output in inference"} <= found.keys()
        # A wrong result would be off by orders of magnitude; with few errors anything goes.
        enough = [ratio.ratio for ratio in found.values() if ratio.chance <= FEW**-0.5]
        assert all(ratio < 8.0 for ratio in enough), trial.told


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("operator", command.OPERATORS)
def test_rounding_more_is_seen(operator):
    outcomes = []
    for seed in range(4):
        trial = command.OPERATORS[operator](Draw(seed), torch.float32)

        def coarse(given, trial=trial):
            outputs = trial.ours(given)
            return {name: output * (1 + 3e-6) for name, output in outputs.items()}

        worse = dataclasses.replace(trial, ours=coarse)
        outcomes.append(Outcome(seed, trial.told, trial.options, ratios(worse)))
    output = next(row for row in by_result(outcomes) if row.result == "output")
    assert output.mean > 1.5
    assert output.above > output.below


def test_a_result_that_is_not_finite_is_no_ratio():
    trial = command.OPERATORS["linear"](Draw(0), torch.float32)
    broken = dataclasses.replace(
        trial, ours=lambda given: {"output": trial.ours(given)["output"] * math.nan}
    )
    with pytest.raises(AssertionError, match=trial.told.split()[0]):
        ratios(broken)


def test_summaries_leave_few_errors_out_of_extremes_and_none_out_of_all():
    found = [Ratio("output", ratio, 0.01) for ratio in (0.5, 0.5, 2.0)]
    outcomes = [
        Outcome(seed, "", ("even",) * (seed % 2 == 0), [of]) for seed, of in enumerate(found)
    ]
    for seed, ratio in enumerate((4.0, 0.0, math.inf, math.inf), start=3):
        outcomes.append(Outcome(seed, "", (), [Ratio("output", ratio, 1.0)]))
    (row,) = by_result(outcomes)
    assert (row.trials, row.few, row.above, row.below) == (7, 1, 1, 2)
    assert (row.exact_ours, row.exact_theirs) == (1, 2)
    assert row.mean == pytest.approx(2.0**0.25)
    assert (row.largest, row.worst, row.high) == (2.0, 2, 2.0)
    (even,) = by_option(outcomes)["even"]
    assert even.mean == pytest.approx(1.0)


def test_the_command_prints_and_records(tmp_path, monkeypatch, capsys):
    path = tmp_path / "errors.json"
    arguments = ["--operators", "linear", "--types", "float32", "--trials", "3", "--record"]
    monkeypatch.setattr(sys, "argv", ["errors", *arguments, str(path)])
    command.main()
    printed = capsys.readouterr().out
    assert "linear, float32" in printed
    assert "gradient of weight" in printed
    record = json.loads(path.read_text())
    assert record["results"]["linear-float32"]["output"]["trials"] == 3
    assert record["commit"]
    assert record["machine"]["torch"] == torch.__version__
    assert record["machine"]["processor"] == processor()


def test_the_processor_has_a_name(tmp_path):
    told = tmp_path / "cpuinfo"
    lines = ["processor\t: 0", "cpu family\t: 25", "model\t\t: 1", "model name\t: AMD EPYC", ""]
    told.write_text("\n".join(lines * 2))
    assert processor(told) == "AMD EPYC (family 25, model 1)"
    told.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert processor(told) == platform.machine()
    assert processor(tmp_path / "absent") in (platform.processor(), platform.machine())
