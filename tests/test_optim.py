"""The optimizers by hand-computed numbers, their errors, their state, and what they write into."""

import math

import numpy as np
import pytest
from arrays import on_device

from tinygrad_rnn import optim
from tinygrad_rnn.creation import tensor
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.tensor import Tensor

pytestmark = pytest.mark.usefixtures("device")

EVERY_OPTION = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.02},
    "Adam": {"lr": 0.1, "weight_decay": 0.02, "amsgrad": True},
    "AdamW": {"lr": 0.1, "weight_decay": 0.02, "amsgrad": True, "maximize": True},
    "RMSprop": {"momentum": 0.9, "centered": True, "weight_decay": 0.02},
    "Adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.3, "weight_decay": 0.02},
    "Adadelta": {"rho": 0.8, "weight_decay": 0.02},
    "ASGD": {"lambd": 0.02, "t0": 4, "weight_decay": 0.02},
}
EACH = pytest.mark.parametrize("name", EVERY_OPTION)


def parameter(values, dtype=np.float64):
    return tensor(np.array(values, dtype=dtype), requires_grad=True)


def parameters(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [parameter(rng.normal(size=shape), dtype) for shape in [(3, 5), (), (7,), (2, 1, 3)]]


def give_gradients(params, rng):
    for p in params:
        p.grad = tensor(np.array(rng.normal(size=p.shape), dtype=p.dtype))


def steps(optimizer, p, gradients):
    """The values of a parameter with one element after each of the given gradients."""
    values = []
    for g in gradients:
        p.grad = tensor(np.array([g], dtype=p.dtype))
        optimizer.step()
        values.append(p[0].item())
    return values


# --- the update rules, by hand -------------------------------------------------------------------


def test_sgd_by_hand():
    w = parameter([1.0])
    assert steps(optim.SGD([w], lr=0.5, weight_decay=0.1), w, [2.0, 0.0]) == pytest.approx(
        [1 - 0.5 * (2 + 0.1), -0.05 - 0.5 * 0.1 * -0.05]
    )


def test_momentum_by_hand():
    w = parameter([0.0])  # b: 1, then 0.5 + 2, then 1.25 + 4
    assert steps(optim.SGD([w], lr=1.0, momentum=0.5), w, [1.0, 2.0, 4.0]) == pytest.approx(
        [-1.0, -3.5, -8.75]
    )


def test_the_first_gradient_is_not_dampened():
    w = parameter([0.0])  # b: 1, then 0.5 + 0.25 * 2
    sgd = optim.SGD([w], lr=1.0, momentum=0.5, dampening=0.75)
    assert steps(sgd, w, [1.0, 2.0]) == pytest.approx([-1.0, -2.0])


def test_nesterov_by_hand():
    w = parameter([0.0])  # g + b / 2: 1.5, then 2 + 2.5 / 2
    sgd = optim.SGD([w], lr=1.0, momentum=0.5, nesterov=True)
    assert steps(sgd, w, [1.0, 2.0]) == pytest.approx([-1.5, -4.75])


def test_adam_by_hand():
    w = parameter([0.0])
    adam = optim.Adam([w], lr=0.1, betas=(0.5, 0.75), eps=0.5)
    # m = 1, v = 1, both corrected to 2 and 4: 2 / (2 + 0.5); then m = 0.5 - 0.5, v = 0.75 + 0.25
    m, v = 0.5 * 1 + 0.5 * -1, 0.75 * 1 + 0.25 * 1
    second = m / (1 - 0.25) / (math.sqrt(v / (1 - 0.75**2)) + 0.5)
    assert steps(adam, w, [2.0, -1.0]) == pytest.approx(
        [-0.1 * 2 / 2.5, -0.1 * 2 / 2.5 - 0.1 * second]
    )


def test_amsgrad_keeps_the_largest_second_moment():
    w = parameter([0.0])
    adam = optim.Adam([w], lr=1.0, betas=(0.0, 0.0), eps=0.0, amsgrad=True)
    # v is g², its maximum 16, from the second gradient on
    assert steps(adam, w, [1.0, 4.0, 1.0]) == pytest.approx([-1.0, -2.0, -2.25])


def test_adamw_decays_outside_of_the_scaling():
    w = parameter([1.0])
    adamw = optim.AdamW([w], lr=0.5, weight_decay=0.1)
    assert steps(adamw, w, [0.0])[0] == pytest.approx(0.95)
    w = parameter([1.0])  # Adam divides the decay by its own size: a whole step
    adam = optim.Adam([w], lr=0.5, weight_decay=0.1)
    assert steps(adam, w, [0.0])[0] == pytest.approx(0.5, abs=1e-6)


def test_rmsprop_by_hand():
    w = parameter([0.0])  # v: 0.25 * 4 = 1, then 0.75 + 0.25 * 1 = 1
    rmsprop = optim.RMSprop([w], lr=0.1, alpha=0.75, eps=1.0, momentum=0.5)
    assert steps(rmsprop, w, [2.0, 1.0]) == pytest.approx([-0.1, -0.1 - 0.1 * (0.5 + 0.5)])


def test_centered_rmsprop_by_hand():
    w = parameter([0.0])  # v = 0.5 * 4, the mean 0.5 * 2: the deviation √(2 - 1)
    rmsprop = optim.RMSprop([w], lr=0.1, alpha=0.5, eps=0.0, centered=True)
    assert steps(rmsprop, w, [2.0]) == pytest.approx([-0.2])


def test_adagrad_by_hand():
    w = parameter([0.0])  # s: 9, then 25; lr: 1, then 1 / 1.5
    adagrad = optim.Adagrad([w], lr=1.0, lr_decay=0.5, eps=0.0)
    assert steps(adagrad, w, [3.0, 4.0]) == pytest.approx([-1.0, -1.0 - 0.8 / 1.5])


def test_adadelta_by_hand():
    w = parameter([0.0])  # v = 0.75 * 4, u = 0: Δ = 2 * √1 / √(3 + 1), then u = 0.75
    adadelta = optim.Adadelta([w], rho=0.25, eps=1.0)
    second = 2 * math.sqrt(0.75 + 1) / math.sqrt(0.25 * 3 + 3 + 1)
    assert steps(adadelta, w, [2.0, 2.0]) == pytest.approx([-1.0, -1.0 - second])


def test_asgd_averages_from_t0_on():
    w = parameter([0.0])
    asgd = optim.ASGD([w], lr=1.0, lambd=0.0, t0=1)
    assert steps(asgd, w, [1.0, 1.0, 1.0, 1.0]) == pytest.approx([-1.0, -2.0, -3.0, -4.0])
    # μ = 1 up to the third step, then 1 / (3 - t0): the mean of the last two positions
    assert asgd.state[w]["ax"].item() == pytest.approx(-3.5)


@EACH
def test_maximize_is_descent_of_the_negated_gradient(name):
    up, down = parameters(), parameters()
    options = {**EVERY_OPTION[name], "weight_decay": 0.0}
    climb = getattr(optim, name)(up, **{**options, "maximize": True})
    descend = getattr(optim, name)(down, **{**options, "maximize": False})
    rng = np.random.default_rng(1)
    for _ in range(3):
        give_gradients(up, rng)
        for p, q in zip(up, down, strict=True):
            q.grad = -p.grad
        climb.step()
        descend.step()
        for p, q in zip(up, down, strict=True):
            np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


@EACH
def test_a_bowl_is_descended(name):
    w = parameter([3.0, -2.0, 0.5])
    options = {"Adadelta": {"lr": 20.0}, "Adagrad": {"lr": 1.0}}.get(name, {"lr": 0.05})
    optimizer = getattr(optim, name)([w], **options)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


# --- what is written, and what is not ------------------------------------------------------------


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_are_in_place_and_keep_the_dtype(name, dtype):
    params = parameters(dtype)
    arrays = [p.array for p in params]
    optimizer = getattr(optim, name)(params, **EVERY_OPTION[name])
    rng = np.random.default_rng(1)
    for _ in range(2):
        give_gradients(params, rng)
        gradients = [p.grad.numpy().copy() for p in params]
        optimizer.step()
        for p, g in zip(params, gradients, strict=True):
            np.testing.assert_array_equal(p.grad.numpy(), g)
    for p, array in zip(params, arrays, strict=True):
        assert p.array is array
        assert p.dtype == dtype
        for value in optimizer.state[p].values():
            assert not isinstance(value, Tensor) or (value.dtype, value.shape) == (dtype, p.shape)


@EACH
def test_numpy_scalars_as_options_do_not_widen_float32(name):
    """An np.float64 beside a float32 array computes in float64, and rounds differently."""
    plain, numpy = parameters(np.float32), parameters(np.float32)
    options = EVERY_OPTION[name]
    first = getattr(optim, name)(plain, **options)
    second = getattr(optim, name)(
        numpy, **{k: v if isinstance(v, bool) else np.float64(v) for k, v in options.items()}
    )
    for seed in range(3):
        for group in second.param_groups:
            group["lr"] = np.float64(first.param_groups[0]["lr"])
        for params in (plain, numpy):
            give_gradients(params, np.random.default_rng(seed))
        first.step()
        second.step()
    for p, q in zip(plain, numpy, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


@EACH
def test_a_transposed_parameter_is_updated(name):
    """Neither the parameter nor the gradient need be contiguous."""
    rng = np.random.default_rng(0)
    value, g = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    transposed, plain = Tensor(on_device(value.T.copy()).T, requires_grad=True), parameter(value)
    transposed.grad, plain.grad = tensor(g), Tensor(on_device(np.asfortranarray(g)))
    getattr(optim, name)([transposed, plain]).step()
    np.testing.assert_array_equal(transposed.detach().numpy(), plain.detach().numpy())
    assert not np.array_equal(plain.detach().numpy(), value)


def test_a_value_read_before_the_step_is_stale_in_backward():
    w = parameter([1.0, 2.0])
    loss = (w * w).sum()
    w.grad = tensor(np.ones(2))
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match=r"SGD\.step\(\)"):
        loss.backward()


@EACH
def test_a_parameter_without_gradient_is_left_alone(name):
    used, unused = parameter([1.0, 2.0]), parameter([3.0])
    optimizer = getattr(optim, name)([used, unused], **EVERY_OPTION[name])
    used.grad = tensor(np.ones(2))
    optimizer.step()
    assert unused.tolist() == [3.0]
    assert list(optimizer.state_dict()["state"]) == [0]


def test_bias_correction_counts_a_parameters_own_steps():
    """A parameter that missed nine steps takes the first one like any other."""
    early, late = parameter([0.0]), parameter([0.0])
    adam = optim.Adam([early, late], lr=0.1)
    steps(adam, early, [1.0] * 9)
    steps(adam, late, [1.0])
    assert late.item() == pytest.approx(-0.1)


def test_zero_grad():
    w, unused = parameter([1.0]), parameter([1.0])
    sgd = optim.SGD([w, unused], lr=0.1)
    w.grad = given = tensor(np.array([2.0]))
    sgd.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0.0]
    assert given.tolist() == [2.0]  # it may be somebody else's
    assert unused.grad is None
    sgd.zero_grad()
    assert w.grad is None


def test_closure_is_called_once_and_its_loss_returned():
    w = parameter([3.0])
    sgd = optim.SGD([w], lr=0.5)
    losses = []

    def closure():
        sgd.zero_grad()
        losses.append((w * w).sum())
        losses[-1].backward()
        return losses[-1]

    with no_grad():  # the closure records all the same
        assert sgd.step(closure) is losses[0]
    assert len(losses) == 1
    assert w.tolist() == [0.0]
    assert sgd.step() is None


# --- groups --------------------------------------------------------------------------------------


def test_groups_have_their_own_options():
    a, b, c = parameter([1.0]), parameter([1.0]), parameter([1.0])
    sgd = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    sgd.add_param_group({"params": [c], "weight_decay": 2.0})
    for p in (a, b, c):
        p.grad = tensor(np.ones(1))
    sgd.step()
    assert [a.item(), b.item(), c.item()] == [0.75, 0.5, 0.25]
    sgd.param_groups[0]["lr"] = 0.0  # options may be changed between steps
    sgd.step()
    assert a.item() == 0.75


def test_options_may_be_tensors_or_numpy_scalars():
    """They are kept as Python numbers, which any checkpoint format can hold."""
    adam = optim.Adam(
        [parameter([1.0])], lr=tensor(np.array(0.5)), betas=(np.float64(0.5), np.float64(0.75))
    )
    adam.add_param_group({"params": [parameter([1.0])], "eps": np.float32(0.5)})
    groups = adam.state_dict()["param_groups"]
    assert [(g["lr"], g["betas"], g["eps"]) for g in groups] == [
        (0.5, (0.5, 0.75), 1e-8),
        (0.5, (0.5, 0.75), 0.5),
    ]
    assert {type(value) for g in groups for value in (g["lr"], g["eps"], *g["betas"])} == {float}


def test_a_group_given_as_a_dict_is_not_changed():
    group = {"params": [parameter([1.0])]}
    optim.SGD([group])
    assert list(group) == ["params"]


def test_named_parameters():
    a, b = parameter([1.0]), parameter([1.0])
    sgd = optim.SGD([("first", a), ("second", b)])
    assert sgd.param_groups[0]["params"] == [a, b]
    assert sgd.state_dict()["param_groups"][0]["param_names"] == ["first", "second"]
    with pytest.raises(ValueError, match="1 of 2 parameters are named"):
        optim.SGD([("first", a), b])
    with pytest.raises(ValueError, match="all parameter groups are named or none"):
        sgd.add_param_group({"params": [parameter([1.0])]})


def test_repr_lists_the_options():
    assert repr(optim.SGD([parameter([1.0])], lr=0.5)) == (
        "SGD (\nParameter Group 0\n    dampening: 0\n    lr: 0.5\n    maximize: False\n"
        "    momentum: 0\n    nesterov: False\n    weight_decay: 0\n)"
    )


# --- errors --------------------------------------------------------------------------------------


def test_errors_of_the_parameter_list():
    w = parameter([1.0])
    with pytest.raises(ValueError, match="SGD: optimizer got an empty parameter list"):
        optim.SGD([])
    with pytest.raises(TypeError, match="params is one Tensor"):
        optim.SGD(w)
    with pytest.raises(TypeError, match="set, whose order"):
        optim.SGD({w})
    with pytest.raises(TypeError, match="set, whose order"):
        optim.SGD([{"params": {w}}])
    with pytest.raises(TypeError, match="can only optimize Tensors, got a ndarray"):
        optim.SGD([w.array])
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        optim.SGD([w * 2])
    with pytest.raises(ValueError, match="appear in more than one parameter group"):
        optim.SGD([{"params": [w]}, {"params": [w]}])
    with pytest.raises(ValueError, match='has no "params"'):
        optim.SGD([{"lr": 0.1}])
    with pytest.raises(TypeError, match="must be a dict"):
        optim.SGD([w]).add_param_group([w])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optim.SGD([w, w])


def test_options_are_checked_in_every_group():
    w = parameter([1.0])
    with pytest.raises(ValueError, match="SGD: invalid lr: -1; expected at least 0"):
        optim.SGD([{"params": [w], "lr": -1}], lr=0.1)
    with pytest.raises(ValueError, match="invalid lr: nan"):
        optim.SGD([w], lr=math.nan)


def test_a_gradient_of_another_shape_is_refused():
    """NumPy would broadcast it."""
    w = parameter([[1.0, 2.0]])
    w.grad = tensor(np.ones(2))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) has a grad of shape \(2,\)"):
        optim.SGD([w], lr=0.1).step()


def test_an_optimizer_needs_a_rule():
    w = parameter([1.0])
    w.grad = tensor(np.ones(1))
    with pytest.raises(NotImplementedError, match=r"must define update\(\) or step\(\)"):
        optim.Optimizer([w], {}).step()


def test_a_subclass_may_bring_its_own_step():
    class SignSGD(optim.Optimizer):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(p.grad.sign(), alpha=-group["lr"])

    w = parameter([1.0, 1.0])
    w.grad = tensor(np.array([-3.0, 5.0]))
    SignSGD([w], {"lr": 0.5}).step()
    assert w.tolist() == [1.5, 0.5]


# --- saving and loading --------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_continues_bit_for_bit(name, dtype):
    whole = parameters(dtype)
    optimizer = getattr(optim, name)(
        [{"params": whole[:2]}, {"params": whole[2:], "lr": 0.03}], **EVERY_OPTION[name]
    )
    rng = np.random.default_rng(1)
    for _ in range(7):
        give_gradients(whole, rng)
        optimizer.step()
    saved = optimizer.state_dict()
    resumed = [tensor(p.detach(), requires_grad=True) for p in whole]
    state = rng.bit_generator.state

    for _ in range(6):  # the saved state must not follow
        give_gradients(whole, rng)
        optimizer.step()

    successor = getattr(optim, name)([{"params": resumed[:2]}, {"params": resumed[2:]}], lr=9.0)
    successor.load_state_dict(saved)
    rng.bit_generator.state = state
    for _ in range(6):
        give_gradients(resumed, rng)
        successor.step()
    for p, q in zip(whole, resumed, strict=True):
        assert np.array_equal(p.detach().numpy(), q.detach().numpy())
    for p, q in zip(whole, resumed, strict=True):
        for entry, value in optimizer.state[p].items():
            assert np.array_equal(value, successor.state[q][entry])


def test_state_dict_format():
    a, b, c = parameter([1.0, 2.0]), parameter([1.0]), parameter([3.0])
    adam = optim.Adam([{"params": [a, b]}, {"params": [c], "lr": 0.5}])
    a.grad, c.grad = tensor(np.array([1.0, 2.0])), tensor(np.array([1.0]))
    adam.step()
    saved = adam.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [[0, 1], [2]]
    assert [group["lr"] for group in saved["param_groups"]] == [1e-3, 0.5]
    assert list(saved["state"]) == [0, 2]
    assert saved["state"][0]["step"] == 1
    np.testing.assert_allclose(saved["state"][0]["exp_avg"].numpy(), [0.1, 0.2])


def test_state_may_come_as_plain_arrays_and_takes_the_parameters_dtype():
    w = parameter([1.0, 2.0], np.float32)
    sgd = optim.SGD([w], lr=1.0, momentum=0.5)
    state = {0: {"momentum_buffer": np.array([2.0, 4.0])}}
    sgd.load_state_dict({"state": state, "param_groups": sgd.state_dict()["param_groups"]})
    assert sgd.state[w]["momentum_buffer"].dtype == np.float32
    w.grad = tensor(np.zeros(2, np.float32))
    sgd.step()
    assert w.tolist() == [0.0, 0.0]
    assert state[0]["momentum_buffer"].tolist() == [2.0, 4.0]


def test_options_missing_from_an_older_save_keep_their_value():
    adam = optim.Adam([parameter([1.0])], eps=0.5)
    adam.load_state_dict({"state": {}, "param_groups": [{"lr": 0.25, "params": [0]}]})
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["eps"]) == (0.25, 0.5)


def test_errors_of_load_state_dict_change_nothing():
    a, b = parameter([1.0, 2.0]), parameter([1.0])
    sgd = optim.SGD([a, b], lr=0.5, momentum=0.5)
    give_gradients([a, b], np.random.default_rng(0))
    sgd.step()
    before = sgd.state_dict()
    group = {"lr": 0.1, "params": [0, 1]}
    wrong = [
        ({"state": {}, "param_groups": []}, "0 parameter groups were saved, the optimizer has 1"),
        (
            {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
            "group 0 was saved with 1 parameters, the optimizer's has 2",
        ),
        (
            {"state": {0: {"momentum_buffer": np.zeros(3)}}, "param_groups": [group]},
            r"momentum_buffer of parameter 0 has shape \(3,\), the parameter has \(2,\)",
        ),
        ({"state": {5: {}}, "param_groups": [group]}, "state of parameter 5, which no group has"),
    ]
    for state_dict, message in wrong:
        with pytest.raises(ValueError, match=message):
            sgd.load_state_dict(state_dict)
    after = sgd.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for index in (0, 1):
        np.testing.assert_array_equal(
            after["state"][index]["momentum_buffer"].numpy(),
            before["state"][index]["momentum_buffer"].numpy(),
        )
