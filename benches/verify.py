"""No speed without green: a case is timed only when its results can be trusted."""

import torch

from benches.registry import Case

SLACK = 2.0
"""How many times the rival's error ours may be before a case counts as wrong: errors of two correct
programs differ by rounding luck, those of a wrong one by orders of magnitude."""


def error_norm(results: tuple[torch.Tensor, ...], truth: tuple[torch.Tensor, ...]) -> float:
    """The largest relative error, in norm, of any of the results."""
    errors = [
        float(torch.linalg.vector_norm(result.double() - exact))
        / max(float(torch.linalg.vector_norm(exact)), 1e-300)
        for result, exact in zip(results, truth, strict=True)
    ]
    return max(errors)


def verify_other(case: Case, results: tuple[torch.Tensor, ...]) -> None:
    """Looks whether a further rival computes the same, to the precision of the case.

    Raises:
        AssertionError: if it does not.
    """
    error = error_norm(results, case.rival(*case.inputs(torch.float64)))
    precision = 1e-4 if case.dtype == torch.float32 else 3e-2
    assert error <= precision, f"{case}: error {error:.1e}"


def verify(case: Case) -> tuple[float, float]:
    """Returns the errors of ours and of the rival against float64.

    Raises:
        AssertionError: if ours is not finite, or further from the truth than the rival's.
    """
    inputs = case.inputs(case.dtype)
    truth = case.rival(*(tensor.double() for tensor in inputs))
    ours = error_norm(case.ours(*inputs), truth)
    rival = error_norm(case.rival(*inputs), truth)
    assert ours <= SLACK * rival + 1e-7, f"{case}: error {ours:.1e}, the rival's {rival:.1e}"
    return ours, rival
