"""UniPC with every setting that a checkpoint's configuration can have."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from chairlift.errors import ModelError
from chairlift.sampling.schedule import Schedule, diffusion_schedule, flow_schedule
from tests.sampling.reference import assert_same, stock

STEPS = [1, 2, 3, 4, 20, 30]
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
PREDICTIONS: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1},
    "v": {"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "zero terminal SNR": {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
    },
    "karras": {"prediction_type": "epsilon", "use_karras_sigmas": True},
    "flow": FLOW,
}


class UniPC(UniPCMultistepScheduler):
    """diffusers' UniPC with a last step that is finite.

    At ``sigma`` 0 every order but the first divides by an infinite ``h``, and ``bh1`` multiplies
    one by 0. Of the first order, the step leaves the predicted clean latents.
    """

    def multistep_uni_p_bh_update(self, *args: Any, **options: Any) -> Tensor:
        if self.sigmas[self.step_index + 1] == 0:
            return self.model_outputs[-1]
        return super().multistep_uni_p_bh_update(*args, **options)


def schedule_of(steps: int, config: dict[str, Any]) -> Schedule:
    if config["prediction_type"] == "flow_prediction":
        return flow_schedule("unipc", steps, config)
    return diffusion_schedule("unipc", steps, config)


def assert_equals_diffusers(cls: Any, config: dict[str, Any], steps: int) -> None:
    scheduler = cls.from_config(config)
    scheduler.set_timesteps(steps)
    assert_same(schedule_of(steps, config), stock(scheduler))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_lone_row_equals_diffusers(prediction: str, order: int, steps: int) -> None:
    config = PREDICTIONS[prediction] | {"solver_order": order}
    assert_equals_diffusers(UniPCMultistepScheduler, config, steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("order", "kind"), list(product([1, 2, 3], ["bh1", "bh2"])))
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_last_step_that_diffusers_can_t_take_is_of_first_order(
    prediction: str, order: int, kind: str, steps: int
) -> None:
    config = PREDICTIONS[prediction] | {"solver_order": order, "solver_type": kind}
    assert_equals_diffusers(UniPC, config, steps)
    assert_equals_diffusers(UniPC, config | {"lower_order_final": False}, steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    ("order", "kind", "lower"), list(product([1, 2, 3], ["bh1", "bh2"], [True, False]))
)
def test_a_last_level_above_0_equals_diffusers(
    order: int, kind: str, lower: bool, steps: int
) -> None:
    config = PREDICTIONS["epsilon"] | {
        "final_sigmas_type": "sigma_min",
        "solver_order": order,
        "solver_type": kind,
        "lower_order_final": lower,
    }
    assert_equals_diffusers(UniPCMultistepScheduler, config, steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("disabled", [[0], [0, 1, 2], [3, 5], list(range(30))], ids=str)
@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_steps_whose_corrector_is_off_equal_diffusers(
    prediction: str, disabled: list[int], steps: int
) -> None:
    config = PREDICTIONS[prediction] | {"disable_corrector": disabled, "solver_order": 3}
    assert_equals_diffusers(UniPCMultistepScheduler, config, steps)


def test_a_solver_type_of_another_class_is_bh2() -> None:
    config = PREDICTIONS["epsilon"] | {"solver_type": "midpoint"}
    solver = diffusion_schedule("unipc", 8, config).solver
    assert solver is not None
    assert solver.kind == "bh2"


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("name", "value"), [("predict_x0", False), ("solver_order", 4)])
def test_a_setting_beyond_the_table_is_refused(prediction: str, name: str, value: Any) -> None:
    with pytest.raises(ModelError, match=f"{name} is {value}"):
        schedule_of(8, PREDICTIONS[prediction] | {name: value})
