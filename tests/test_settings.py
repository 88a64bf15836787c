import pytest

from textlora.errors import SettingsError
from textlora.settings import Recipe, format_recipe, list_recipes, load_recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_survives_being_written_and_read(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "recipe.toml"
    path.write_text(format_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_the_reference_recipe_is_the_mission_table():
    recipe = load_recipe("reference")
    assert recipe.adapter.targets == {"0": ("query", "key"), "5": ("query",), "10": ("query",)}
    assert (recipe.adapter.rank, recipe.adapter.alpha) == (36, 32)
    assert (recipe.dropout.start, recipe.dropout.end) == (0.15, 0.05)
    training = recipe.training
    assert (training.learning_rate, training.weight_decay) == (2e-5, 0.01)
    assert (training.batch_size, training.epochs, training.warmup_share) == (16, 4, 0.1)
    assert (recipe.data.validation_share, recipe.data.split_seed) == (0.1, 42)
    assert not recipe.data.stratified
    assert not recipe.data.repair_entities


def test_assignments_win_over_the_recipe_and_flags_over_both():
    recipe = load_recipe(
        "reference", ["adapter.rank=4", "model.name=a", "training.schedule=cosine"], model__name="b"
    )
    assert recipe.adapter.rank == 4
    assert recipe.model.name == "b"
    assert recipe.training.schedule == "cosine"
    assert load_recipe("reference", model__name=None) == load_recipe("reference")


def test_targets_can_be_assigned_as_a_table():
    recipe = load_recipe("reference", ['adapter.targets={"last 2" = ["query", "ffn"]}'])
    assert recipe.adapter.targets == {"last 2": ("query", "ffn")}


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("adapter.rnak=8", ["rnak", "unknown", "rank, alpha, targets"]),
        ("adaptor.rank=8", ["adaptor", "unknown", "adapter"]),
        ("adapter.rank=0", ["adapter.rank", "0", "greater"]),
        ("training.epochs=-1", ["training.epochs", "-1"]),
        ("training.learning_rate=fast", ["training.learning_rate", "fast"]),
        ("dropout.start=1.5", ["dropout.start", "1.5"]),
        ('adapter.targets={all = ["queri"]}', ["queri", "query"]),
        ('data.label_names=["x", "y", "y"]', ["data.label_names: y is there twice", "'x', 'y'"]),
        ("rank=8", ["rank=8", "section.name=value"]),
        ("adapter.rank", ["adapter.rank", "section.name=value"]),
    ],
)
def test_a_bad_setting_is_refused_with_its_name_and_value(assignment, parts):
    with pytest.raises(SettingsError) as caught:
        load_recipe("reference", [assignment])
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_all_problems_are_reported_together():
    with pytest.raises(SettingsError, match=r"rnak.*training\.epochs"):
        load_recipe("reference", ["adapter.rnak=8", "training.epochs=0"])


def test_a_broken_or_missing_recipe_file_is_refused(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[adapter\nrank = 8", encoding="utf-8")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_recipe(str(path))
    with pytest.raises(SettingsError, match=r"nowhere\.toml.*no such file.*reference"):
        load_recipe(str(tmp_path / "nowhere.toml"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_recipe(str(path))


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().adapter.rank = 3
