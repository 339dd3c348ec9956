import pytest
import torch

from prune2drive.errors import InputError
from prune2drive.minidrive.architecture import Architecture
from prune2drive.minidrive.questions import QUESTION_KINDS
from prune2drive.minidrive.training.batches import PADDING, PREFIX, PackedMiniDrive
from prune2drive.minidrive.training.module import LEAST_LAYERS, MiniDriveTraining
from prune2drive.minidrive.training.recipe import Recipe
from prune2drive.minidrive.training.schedule import AUXILIARY_LOSSES, PHASES, Schedule
from prune2drive.minidrive.training.targets import IGNORED

SMALL = {"vision_width": 32, "vision_layers": 1, "vision_heads": 1, "width": 32, "heads": 2, "mlp": 32}
SIZES = Architecture(resolution=28, layers=4, **SMALL)
SCHEDULE = Schedule(4, 8, 5, dict.fromkeys(PHASES, 2), dict.fromkeys(AUXILIARY_LOSSES, 1.0))
RECIPE = Recipe(3, {"dense": 1.0}, dict.fromkeys(QUESTION_KINDS, 1.0), scenes=2, resolution=28)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return MiniDriveTraining(SIZES, SCHEDULE, RECIPE, 8).eval()


@torch.no_grad()
def test_decode_answers_packed_questions_as_if_each_were_asked_alone(module):
    batch = PackedMiniDrive(lambda: (), module.tokenizer).batch(0, RECIPE)
    hidden = module.decode(batch, module.encode_images(batch["pixels_SC3HW"])).last_hidden_state
    module.model.set_attn_implementation({"text_config": "sdpa"})
    for scene in range(2):
        for question in range(3):
            segment = batch["segment_ST"][scene]
            own = (segment == PREFIX) | (segment == question)
            alone = module.model.model(
                input_ids=batch["ids_ST"][scene : scene + 1, own],
                mm_encoder_outputs={"image": module.encode_images(batch["pixels_SC3HW"][scene : scene + 1])},
            ).last_hidden_state[0]
            torch.testing.assert_close(hidden[scene, own], alone, atol=1e-5, rtol=1e-4)
    assert (batch["labels_ST"][batch["segment_ST"] == PADDING] == IGNORED).all()


@pytest.mark.parametrize("step, vision, language", [(0, True, False), (4, False, True), (12, True, True)])
def test_training_step_of_a_phase_has_gradients_for_its_part(module, monkeypatch, step, vision, language):
    monkeypatch.setattr(MiniDriveTraining, "global_step", step)
    module.log = lambda *values, **options: None
    module.training_step(PackedMiniDrive(lambda: (), module.tokenizer).batch(0, RECIPE), 0).backward()
    taught = {name for name, weight in module.model.named_parameters() if weight.grad is not None}
    assert any("vision_tower" in name for name in taught) == vision
    assert any("language_model.layers" in name for name in taught) == language


def test_module_refuses_too_few_layers():
    with pytest.raises(InputError, match="task.model.layers=2: use at least 3"):
        MiniDriveTraining(Architecture(layers=LEAST_LAYERS - 1, resolution=28, **SMALL), SCHEDULE, RECIPE, 8)
