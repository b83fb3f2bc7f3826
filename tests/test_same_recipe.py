"""What a recipe may have beside the paper's: stopped anywhere, on any ranks, the same training."""

import pytest
import torch
from tests.faults import Killed
from tests.reliability.ranks import finish, together
from tests.small import digest, few_digits, files
from tests.test_ranks import without_norm

from boundnas import TrainSettings, fit
from boundnas.engine import ranks
from boundnas.errors import RunError
from boundnas.fit import loop

STEPS, COST_RANGE = 7, (2e4, 6e4)

RECIPES = {
    "averaged weights": {"ema": 0.3},
    "bfloat16": {"precision": "bf16"},
    "a batch in parts": {"accumulate": 2},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "all at once": {"accumulate": 2, "mixup": 0.4, "cutmix": 1.0, "ema": 0.9},
}


def trained(folder=None, **recipe):
    settings = TrainSettings(
        steps=STEPS, batch_size=16, checkpoint_every=2, start_std=1e-3, start_temperature=1.0,
        **recipe,
    )  # fmt: skip
    return fit(
        without_norm(), few_digits(), cost_range=COST_RANGE, settings=settings, folder=folder
    )


@pytest.fixture(scope="module")
def usual():
    return digest(trained().model)


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_goes_on_in_the_same_bytes_and_with_its_own_recipe_only(
    name, usual, tmp_path, monkeypatch
):
    recipe, save = RECIPES[name], loop.checkpoint.save
    whole = trained(tmp_path / "whole", **recipe)
    assert digest(whole.model) != usual

    def stopping(path, step, *rest, **options):
        save(path, step, *rest, **options)
        if step == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoint, "save", stopping)
        with pytest.raises(Killed):
            trained(tmp_path / "stopped", **recipe)
    with pytest.raises(RunError, match=rf"is of a run with train\.{next(iter(recipe))} = "):
        trained(tmp_path / "stopped")
    for _ in range(2):  # goes on, then finds the run finished
        assert digest(trained(tmp_path / "stopped", **recipe).model) == digest(whole.model)
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_ranks_with_a_recipe_give_what_one_process_gives(tmp_path):
    def work(size):
        with ranks.connected(60):
            run = trained(**RECIPES["all at once"])
            torch.save(run.model.state_dict(), tmp_path / f"{size}-{ranks.rank()}.pt")

    for size in (1, 2):
        codes, texts = finish(together(lambda size=size: work(size), tmp_path, size))
        assert codes == [0] * size, texts
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for name, value in first.items():
        assert torch.equal(value, second[name])
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)
