"""Every loss against its golden numbers and against the promises at the head of `modeling_comm/loss_base.py`.

A new loss is one line in `CASES` (two if golden numbers exist for several parameters).
"""

import ast
import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import SHARED, requires_shared

from modeling_comm import SettingError, loss_base, loss_registry, losses
from modeling_comm.loss_base import check_inputs, reduce_losses, relation_distances
from modeling_comm.losses import available_losses, get_loss, loss_from_config, register_loss
from modeling_comm.settings import NameTakenError, WrongResultError

CMM_MARGINS, CMM_GAMMAS = (0.1, 0.2, 0.3, 0.4), (1.0, 1.2, 1.4, 1.6, 2.0)  # the axes of the golden arrays
BUILT_IN = available_losses()
RATES = dict.fromkeys(range(1, 97), 0.01)
NEEDED = {"ssr_pu": {"label_rates": RATES}}  # settings without which a loss cannot be computed
OF_BATCHES = {"ssr_pu"}  # losses in which a pair's share depends on the other pairs


@functools.cache
def golden():
    """All golden arrays and the flags that say where an original's floor shows."""
    folder = SHARED / "golden" / "losses"
    arrays = {}
    for name in ("losses.npz", "losses_more.npz"):
        with np.load(folder / name) as file:
            arrays.update(file)
    flags = json.loads((folder / "losses_more.json").read_text(encoding="utf-8"))["flags"]
    return arrays, flags


def of_mean(key: str):
    """First set: `{key}_rows_f64`, and the gradient of the mean over the rows."""

    def read(arrays, flags):
        rows = arrays[f"{key}_rows_f64"]
        return rows, arrays[f"{key}_grad_f64"] * len(rows), []

    return read


def of_rows(key: str, *index: int):
    """`{key}_rows` and `{key}_grad`, each row's own, at a place on the leading axes."""
    return lambda arrays, flags: (arrays[f"{key}_rows"][index], arrays[f"{key}_grad"][index], [])


def of_ncrl(shift: str, regularizer: bool):
    """As `of_rows`, naming the rows where the original's floor of 1e-8 cuts a term off, which ours does not do."""
    key = f"ncrl_shift{shift}_{'reg' if regularizer else 'noreg'}"

    def read(arrays, flags):
        floored = list(flags[f"ncrl_shift{shift}"]["rows_with_a_term_below_the_floor"])
        if regularizer:
            floored += flags["ncrl_regulariser_term_below_the_floor"][f"shift{shift}"]
        return arrays[f"{key}_rows"], arrays[f"{key}_grad"], floored

    return read


class Case(NamedTuple):
    name: str
    parameters: dict
    golden: Callable | None = None  # (arrays, flags) -> losses per row, their gradients, rows to leave out

    def __call__(self, logits, labels, reduction="mean"):
        return get_loss(self.name).function(logits, labels, reduction=reduction, **self.parameters)


CASES = [
    *(
        Case("cmm", {"margin": margin, "gamma": gamma}, of_rows("cmm", i, j))
        for i, margin in enumerate(CMM_MARGINS)
        for j, gamma in enumerate(CMM_GAMMAS)
    ),
    *(Case("cmm", {"margin": 0.0, "gamma": gamma}, of_rows("cmm_m0", i)) for i, gamma in enumerate((0.0, 1.0, 2.0))),
    *(
        Case("cmm", {"margin": margin, "gamma": 0.0}, of_rows("cmm_g0", i))
        for i, margin in enumerate((0.0, *CMM_MARGINS))
    ),
    Case("cmm", {"margin": 0.2, "gamma": 0.5}),
    Case("margin", {}, of_rows("margin_plain")),
    Case("sat", {}, of_rows("sat_stable")),
    Case("atl", {}, of_mean("atl")),
    Case("balanced_softmax", {}, of_mean("balanced")),
    Case("cross_entropy", {}),
    Case("aml", {"margin": 1.0}, of_rows("aml")),
    Case("afl", {"gamma": 0.0}),
    Case("afl", {"gamma": 0.5, "weight": "paper"}),
    Case("afl", {"gamma": 1.0}, of_mean("afl")),
    Case("afl", {"gamma": 2.0}, of_mean("afl_gp2")),
    Case("afl", {"gamma": 1.0, "weight": "paper"}, of_rows("afl_published_g1")),
    Case("afl", {"gamma": 2.0, "weight": "paper"}, of_rows("afl_published_g2")),
    Case("hingeabl", {"margin": 5.0}, of_rows("hingeabl_attached_stable")),
    Case("hingeabl", {"margin": 5.0, "detach_weights": True}, of_rows("hingeabl_detached_stable")),
    Case("ncrl", {"shift": 0.0}, of_ncrl("0", True)),
    Case("ncrl", {"shift": 0.2}, of_ncrl("0.2", True)),
    Case("ncrl", {"shift": 0.0, "regularizer": False}, of_ncrl("0", False)),
    Case("ncrl", {"shift": 0.2, "regularizer": False}, of_ncrl("0.2", False)),
    Case("pu_cmm", {"margin": 0.0, "gamma": 0.5, "weight": 2.0}),
    Case("pu_cmm", {"facts_per_label": 3.0, "facts_per_label_by_relation": {1: 1.0, 4: 20.0}, "weight": 0.5}),
    Case("pu_cmm", {"facts_per_label": 1.0}, of_rows("cmm", CMM_MARGINS.index(0.2), CMM_GAMMAS.index(1.0))),
    Case("ssr_pu", {"label_rates": RATES}),
    Case("ssr_pu", {"label_rates": RATES, "facts_per_label_by_relation": {1: 1.0, 4: 20.0}, "margin": 1.0}),
]


def case_id(case: Case) -> str:
    return "-".join([case.name, *(f"{key}={value}" for key, value in case.parameters.items())])


every_case = pytest.mark.parametrize("case", CASES, ids=case_id)


def make_pairs(pairs=12, relations=7, scale=3.0, dtype=torch.float32, seed=0):
    """Random logits, and labels with no relation, one, several and all of them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(pairs, 1 + relations, generator=generator, dtype=torch.float64) * scale
    labels = (torch.rand(pairs, 1 + relations, generator=generator) < 0.3).to(torch.uint8)
    labels[0], labels[1] = 0, 1
    return logits.to(dtype), labels


def loss_and_gradient(function, logits, labels):
    """Loss per pair and the gradient of their sum, that is, each pair's own."""
    logits = logits.clone().requires_grad_()
    values = function(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return values.detach(), gradient


def assert_near(actual, expected, tolerance):
    """Largest difference, relative to max(1, |expected|)."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    error = ((actual.double() - expected).abs() / expected.abs().clamp(min=1)).max().item()
    assert error <= tolerance, f"off by {error:.3g}, allowed {tolerance:.3g}"


# Every loss


def test_every_loss_is_registered_and_has_a_case():
    assert {case.name for case in CASES} == set(BUILT_IN) >= {"cmm", "atl", "margin"}
    assert {name for name in BUILT_IN if get_loss(name).decision_threshold == "zero"} == {"balanced_softmax"}


@requires_shared
@pytest.mark.parametrize(
    ("dtype", "loss_tolerance", "gradient_tolerance"),
    [(torch.float64, 1e-9, 1e-9), (torch.float32, 1e-6, 1e-5)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("case", [case for case in CASES if case.golden], ids=case_id)
def test_agrees_with_the_golden_numbers(case, dtype, loss_tolerance, gradient_tolerance):
    arrays, flags = golden()
    expected, expected_gradient, left_out = case.golden(arrays, flags)
    kept = np.setdiff1d(np.arange(len(expected)), left_out)
    assert len(kept) >= 30
    logits, labels = torch.tensor(arrays["logits"][kept]).to(dtype), torch.tensor(arrays["labels"][kept])
    values, gradient = loss_and_gradient(case, logits, labels)
    assert values.dtype == gradient.dtype == dtype
    assert_near(values, expected[kept], loss_tolerance)
    assert_near(gradient, expected_gradient[kept], gradient_tolerance)


# With the weights taken as constants the gradient is not the derivative of the loss, on purpose.
@pytest.mark.parametrize("case", [case for case in CASES if not case.parameters.get("detach_weights")], ids=case_id)
def test_gradient_is_the_derivative(case):
    logits, labels = make_pairs(pairs=4, relations=4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: case(x, labels, "sum"), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_case
def test_half_precision_is_computed_in_float32(case, dtype):
    logits, labels = make_pairs(dtype=dtype)
    expected, expected_gradient = loss_and_gradient(case, logits.float(), labels)
    values, gradient = loss_and_gradient(case, logits, labels)
    assert values.dtype == torch.float32 and torch.equal(values, expected)
    assert gradient.dtype == dtype and torch.equal(gradient, expected_gradient.to(dtype))
    with torch.autocast("cpu", dtype=dtype):
        for given in (logits, logits.float()):
            inside, inside_gradient = loss_and_gradient(case, given, labels)
            assert inside.dtype == torch.float32 and torch.equal(inside, expected)
            assert torch.equal(inside_gradient, expected_gradient.to(given.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_case
def test_huge_logits_stay_finite(case, dtype):
    logits, labels = make_pairs(pairs=32, dtype=dtype)
    for huge in (logits.sign() * 1e4, logits * 1e3, torch.full_like(logits, 1e4), torch.full_like(logits, -1e4)):
        values, gradient = loss_and_gradient(case, huge, labels)
        assert values.isfinite().all() and gradient.isfinite().all()
        exact, exact_gradient = loss_and_gradient(case, huge.double(), labels)
        assert_near(values, exact, 1e-6)
        assert_near(gradient, exact_gradient, 1e-5)


@every_case
def test_nan_is_not_hidden(case):
    logits, labels = make_pairs()
    logits[2, 3] = math.nan
    values = case(logits, labels, "none")
    assert values[2].isnan() and values.isnan().sum() == 1


@every_case
def test_inputs_are_not_changed_and_every_label_type_counts_the_same(case):
    logits, labels = make_pairs()
    logits_before, labels_before = logits.clone(), labels.clone()
    expected = case(logits, labels, "none")
    assert torch.equal(logits, logits_before) and torch.equal(labels, labels_before)
    for dtype in (torch.bool, torch.int64, torch.float16, torch.float32, torch.float64):
        assert torch.equal(case(logits, labels.to(dtype), "none"), expected)


@every_case
def test_label_of_the_threshold_column_is_ignored(case):
    logits, labels = make_pairs()
    expected = case(logits, labels, "none")
    for value in (0, 1, 9):
        labels[:, 0] = value
        assert torch.equal(case(logits, labels, "none"), expected)


@every_case
def test_reductions_agree(case):
    logits, labels = make_pairs(dtype=torch.float64)
    each = case(logits, labels, "none")
    assert each.shape == (len(logits),)
    torch.testing.assert_close(case(logits, labels, "sum"), each.sum())
    torch.testing.assert_close(case(logits, labels) * len(logits), each.sum())
    alone = torch.cat([case(logits[i : i + 1], labels[i : i + 1], "none") for i in range(len(logits))])
    assert torch.allclose(each, alone) == (case.name not in OF_BATCHES)
    with pytest.raises(SettingError) as error:
        case(logits, labels, "median")
    assert (error.value.field, error.value.value) == ("reduction", "median")


@every_case
def test_no_pairs_give_a_zero_with_a_gradient(case):
    logits = torch.zeros(0, 5, requires_grad=True)
    labels = torch.zeros(0, 5)
    assert case(logits, labels, "none").shape == (0,)
    for reduction in ("mean", "sum"):
        loss = case(logits, labels, reduction)
        assert loss.shape == () and loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.shape == logits.shape


@every_case
def test_adding_a_constant_to_all_logits_changes_nothing_where_th_decides(case):
    logits, labels = make_pairs(dtype=torch.float64)
    shifted = case(logits + 3.7, labels, "none")
    same = torch.allclose(shifted, case(logits, labels, "none"), rtol=1e-9, atol=1e-9)
    assert same == (get_loss(case.name).decision_threshold == "th")


# Single losses


def one_relation(distance: float, dtype=torch.float64):
    return torch.tensor([[0.0, distance]], dtype=dtype)


NEGATIVE, POSITIVE = torch.tensor([[0, 0]]), torch.tensor([[0, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cmm_drops_easy_negatives_exactly(dtype):
    cmm = get_loss("cmm").function
    for margin, distance in ((0.2, -1.4), (0.2, -30.0), (0.2, -1e4), (0.5, 0.0)):  # the last is on the cut-off
        values, gradient = loss_and_gradient(
            functools.partial(cmm, margin=margin), one_relation(distance, dtype), NEGATIVE
        )
        assert values.item() == 0 and gradient.count_nonzero() == 0
    values, gradient = loss_and_gradient(cmm, one_relation(-1.3, dtype), NEGATIVE)
    assert values.item() > 0 and gradient.count_nonzero() == 2


def test_cmm_negative_term_is_bounded_and_its_gradient_fades():
    cmm = get_loss("cmm").function
    assert cmm(one_relation(1e4, torch.float32), NEGATIVE).item() == pytest.approx(-math.log(0.2))
    for distance, slope in ((0, 0.357), (1, 0.419), (5, 0.032), (8, 0.002)):
        gradient = loss_and_gradient(cmm, one_relation(distance), NEGATIVE)[1]
        assert gradient[0, 1].item() == pytest.approx(slope, abs=6e-4)


def test_cmm_concentrates_on_hard_positives():
    q = math.log(1 / (1 + math.exp(2)))
    for gamma in (0.0, 1.0, 1.4, 2.0):
        value = get_loss("cmm").function(one_relation(-2.0), POSITIVE, gamma=gamma)
        assert value.item() == pytest.approx(-((1 - q) ** gamma) * q, rel=1e-12)


def test_losses_that_are_special_cases_of_cmm():
    logits, labels = make_pairs(scale=10, dtype=torch.float64)
    cmm = get_loss("cmm").function
    pairs = [("sat", {}, 0.0)] + [("ncrl", {"shift": m, "regularizer": False}, m) for m in (0.0, *CMM_MARGINS)]
    for name, parameters, margin in pairs:
        other = loss_and_gradient(functools.partial(get_loss(name).function, **parameters), logits, labels)
        torch.testing.assert_close(
            other, loss_and_gradient(functools.partial(cmm, margin=margin, gamma=0.0), logits, labels)
        )


def test_atl_minimum_is_the_entropy_of_its_positives():
    logits = torch.tensor([[0.0, 60, 60, 60, -60, -60]], dtype=torch.float64)
    labels = torch.tensor([[0, 1, 1, 1, 0, 0]])
    assert get_loss("atl").function(logits, labels).item() == pytest.approx(3 * math.log(3))


def test_cross_entropy_is_that_of_one_label_and_shares_several():
    logits, _ = make_pairs(scale=10, dtype=torch.float64)
    gold = torch.arange(len(logits)) % logits.shape[1]  # NA among them
    labels = torch.nn.functional.one_hot(gold, logits.shape[1])
    values, gradient = loss_and_gradient(get_loss("cross_entropy").function, logits, labels)
    expected = torch.nn.functional.cross_entropy(logits, gold, reduction="none")
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gradient, logits.softmax(dim=1) - labels)
    shared = get_loss("cross_entropy").function(torch.tensor([[0.0, 60, 60, -60]]), torch.tensor([[0, 1, 1, 0]]))
    assert shared.item() == pytest.approx(math.log(2))


def test_hingeabl_group_without_weight_adds_nothing():
    hingeabl = get_loss("hingeabl").function
    no_positive, hard_positive = torch.tensor([[0, 0, 0]]), torch.tensor([[0, 1, 0]])
    met = torch.tensor([[0.0, -5.0, -9.0]])
    values, gradient = loss_and_gradient(hingeabl, met, no_positive)
    assert values.item() == 0 and gradient.count_nonzero() == 0
    values, gradient = loss_and_gradient(hingeabl, met, hard_positive)
    assert values.item() == pytest.approx(math.log1p(math.exp(5.0))) and gradient[0, 2] == 0


def test_hingeabl_detached_weights_push_no_relation_the_wrong_way():
    logits, labels = make_pairs(pairs=64, scale=10, dtype=torch.float64)
    hingeabl = get_loss("hingeabl").function
    sign = 1 - 2 * labels[:, 1:].double()  # the loss should fall in a positive's logit and rise in a negative's
    wrong = {
        detach: (
            loss_and_gradient(functools.partial(hingeabl, detach_weights=detach), logits, labels)[1][:, 1:] * sign
        )
        .lt(0)
        .sum()
        for detach in (False, True)
    }
    assert wrong[False] > 0 and wrong[True] == 0
    torch.testing.assert_close(hingeabl(logits, labels), hingeabl(logits, labels, detach_weights=True))


@pytest.mark.parametrize(
    ("name", "keyword", "value"),
    [
        ("cmm", "margin", 1.0),
        ("cmm", "gamma", -1.0),
        ("ncrl", "shift", -0.1),
        ("ncrl", "regularizer", 1),
        ("afl", "gamma", math.nan),
        ("afl", "weight", "both"),
        ("aml", "margin", -1.0),
        ("hingeabl", "margin", -1.0),
        ("pu_cmm", "facts_per_label", 0.99),
        ("pu_cmm", "facts_per_label_by_relation", {3: 0.5}),
        ("pu_cmm", "weight", -1.0),
        ("ssr_pu", "label_rates", None),
        ("ssr_pu", "label_rates", {1: 1.0}),
    ],
)
def test_parameters_out_of_range(name, keyword, value):
    with pytest.raises(SettingError) as error:
        get_loss(name).function(*make_pairs(), **{keyword: value})
    found = error.value
    assert found.field == keyword and (found.value == value or math.isnan(found.value))


# Inputs


@pytest.mark.parametrize(
    ("logits", "labels", "field", "found"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 3), "labels", "(3, 3) of torch.float32"),
        (torch.zeros(3, 4), torch.zeros(2, 4), "labels", "(2, 4) of torch.float32"),
        (torch.zeros(4), torch.zeros(4), "logits", "(4,) of torch.float32"),
        (torch.zeros(3, 1), torch.zeros(3, 1), "logits", "(3, 1) of torch.float32"),
        (torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, 4), "logits", "(3, 4) of torch.int64"),
        (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.complex64), "labels", "(3, 4) of torch.complex64"),
        (torch.zeros(3, 4), torch.tensor([[0.0, 1, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0]]), "labels[1, 2]", 0.5),
        (torch.zeros(1, 3), torch.tensor([[0, 1, -100]]), "labels[0, 2]", -100),
        (torch.zeros(1, 3), torch.tensor([[0, math.nan, 1]]), "labels[0, 1]", pytest.approx(math.nan, nan_ok=True)),
    ],
)
def test_bad_inputs_are_refused_with_what_was_found(logits, labels, field, found):
    for name in BUILT_IN:
        with pytest.raises(SettingError) as error:
            get_loss(name).function(logits, labels, **NEEDED.get(name, {}))
        assert (error.value.field, error.value.value) == (field, found)


def test_helpers_for_own_losses():
    logits, labels = make_pairs(dtype=torch.bfloat16)
    checked, positive = check_inputs(logits, labels)
    distance, same = relation_distances(logits, labels)
    assert checked.dtype == distance.dtype == torch.float32 and positive.dtype == torch.bool
    assert torch.equal(positive, same) and torch.equal(positive, labels[:, 1:].bool())
    assert torch.equal(distance, logits.float()[:, 1:] - logits.float()[:, :1])
    assert reduce_losses(torch.tensor([1.0, 3.0])).item() == 2


# The registry


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(loss_registry, "_REGISTRY", dict(loss_registry._REGISTRY))


def test_unknown_loss_lists_the_known_ones():
    for look_up in (get_loss, lambda name: loss_from_config(SimpleNamespace(loss=name))):
        with pytest.raises(SettingError) as error:
            look_up("focal")
        assert error.value.value == "focal"
        assert all(repr(name) in error.value.expected for name in available_losses())


def test_taken_name_and_unknown_threshold_are_refused(own_registry):
    with pytest.raises(NameTakenError) as taken:
        register_loss("cmm")(losses.atl_loss)
    assert (taken.value.name, taken.value.taken_by) == ("cmm", "modeling_comm.losses.cmm_loss")
    with pytest.raises(SettingError) as error:
        register_loss("mine", decision_threshold="half")
    assert (error.value.field, error.value.value) == ("decision_threshold", "half")
    assert get_loss("cmm").function is losses.cmm_loss


@pytest.mark.parametrize("name", [losses.atl_loss, None, "my loss", "3rd"])
def test_names_that_cannot_serve(own_registry, name):
    with pytest.raises(SettingError) as error:
        register_loss(name)
    assert (error.value.field, error.value.value) == ("name", name)


@pytest.mark.parametrize(
    ("result", "reduction"),
    [
        (None, "mean"),
        (0.5, "mean"),
        (torch.zeros(3), "mean"),
        (torch.zeros(3), "sum"),
        (torch.zeros(1), "sum"),
        (torch.tensor(2), "sum"),
        (torch.zeros(()), "none"),
        (torch.zeros(3, 3), "none"),
    ],
)
def test_results_that_are_no_losses(own_registry, result, reduction):
    @register_loss("mine")
    def mine(logits, labels, reduction="mean"):
        return result

    with pytest.raises(WrongResultError) as error:
        mine(torch.zeros(3, 4), torch.zeros(3, 4), reduction=reduction)
    assert "'mine'" in error.value.owner


def test_the_same_function_may_be_registered_again(own_registry):
    def version(value):
        @register_loss("mine")
        def mine(logits, labels, reduction="mean"):
            return logits.sum() * 0 + value

        return mine

    version(1)
    second = version(2)
    assert get_loss("mine").function is second


def test_a_users_loss_from_a_users_file(own_registry, tmp_path, monkeypatch):
    (tmp_path / "users_loss.py").write_text(
        "from modeling_comm.losses import reduce_losses, register_loss, relation_distances\n"
        "@register_loss('users', decision_threshold='zero')\n"
        "def users_loss(logits, labels, reduction='mean', power: float = 1):\n"
        "    distance, positive = relation_distances(logits, labels)\n"
        "    return reduce_losses((distance - positive.float()).abs().pow(power).sum(dim=1), reduction)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_loss", raising=False)
    import users_loss

    assert get_loss("users").function is users_loss.users_loss
    assert get_loss("users").decision_threshold == "zero" and "users" in available_losses()
    logits, labels = make_pairs()
    configured = loss_from_config(SimpleNamespace(loss="users", users_power=2))
    torch.testing.assert_close(configured(logits, labels), users_loss.users_loss(logits, labels, power=2))
    sys.modules.pop("users_loss")


@pytest.mark.parametrize(
    ("name", "fields", "parameters"),
    [
        ("cmm", {"cmm_margin": 0.4, "cmm_gamma": 2.0}, {"margin": 0.4, "gamma": 2.0}),
        ("cmm", {"cmm_gamma": 1.6}, {"gamma": 1.6}),  # a field that is not there leaves the default
        ("aml", {"aml_margin": 3.0}, {"margin": 3.0}),
        ("afl", {"afl_gamma": 2.0, "afl_weight": "paper"}, {"gamma": 2.0, "weight": "paper"}),
        ("hingeabl", {"hingeabl_margin": 2.0, "hingeabl_detach_weights": True}, {"margin": 2.0}),
        ("ncrl", {"ncrl_shift": 0.3, "ncrl_regularizer": False}, {"shift": 0.3, "regularizer": False}),
        *((name, {}, {}) for name in BUILT_IN if name not in NEEDED),
    ],
)
def test_parameters_come_from_the_configuration(name, fields, parameters):
    logits, labels = make_pairs()
    loss = loss_from_config(SimpleNamespace(loss=name, **fields))
    for reduction in ("mean", "sum", "none"):
        expected = get_loss(name).function(logits, labels, reduction, **parameters)
        assert torch.equal(loss(logits, labels, reduction=reduction), expected)


@pytest.mark.parametrize("module", [loss_base, loss_registry, losses])
def test_module_imports_only_torch_and_the_standard_library(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in imported} <= {"torch", *sys.stdlib_module_names}
