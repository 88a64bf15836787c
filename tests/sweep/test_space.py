import json

import pytest

from textlora.errors import SettingsError
from textlora.settings import list_recipes, load_recipe
from textlora.sweep.space import change_recipe, load_space

RECIPE = load_recipe("quickstart")


@pytest.fixture
def read(tmp_path):
    """A space from its text."""

    def read(text):
        path = tmp_path / "space.toml"
        path.write_text(text)
        return load_space(str(path), RECIPE)

    return read


@pytest.mark.parametrize("name", list_recipes())
def test_the_space_that_ships_fits_the_recipes_that_ship(name):
    recipe = load_recipe(name)
    for dimension in load_space("default", recipe).dimensions:
        for value in dimension.ends:
            change_recipe(recipe, {dimension.name: value}, "test")


def test_sections_and_dotted_names_say_the_same(read):
    short = '"training.epochs" = { choices = [2, 4] }\n"adapter.rank" = { low = 1, high = 8 }'
    long = "[training]\nepochs = { choices = [2, 4] }\n[adapter]\nrank = { low = 1, high = 8 }"
    assert read(short) == read(long)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"training.rate" = { low = 1, high = 2 }', "unknown setting training.rate; known: epochs"),
        ('"tuning.rate" = { low = 1, high = 2 }', "unknown setting tuning.rate; write section"),
        ("epochs = { low = 1, high = 2 }", "unknown setting epochs; write section and name"),
        ('"training.epochs" = 3', "training.epochs: write { low = 1, high = 8 }"),
        ('"training.epochs" = { low = 1 }', "training.epochs: write { low = 1, high = 8 }"),
        ('"training.epochs" = { low = 1, hihg = 2 }', "training.epochs: write { low"),
        ('"training.epochs" = { low = 3, high = 2 }', "low must be below high, got 3 and 2"),
        ('"training.epochs" = { low = 1, high = true }', "high is a number, got True"),
        ('"training.epochs" = { low = "1", high = 2 }', "low is a number, got '1'"),
        ('"training.epochs" = { low = 1, high = 2, step = 3 }', "step must be above 0 and fit"),
        ('"training.epochs" = { low = 1, high = 2, log = 1 }', "log is true or false, got 1"),
        ('"training.epochs" = { low = 0, high = 2, log = true }', "log needs a low above 0"),
        ('"training.epochs" = { low = 0, high = 2 }', "epochs: input should be greater than 0"),
        ('"adapter.rank" = { low = 1.0, high = 8 }', "low is a whole number, got 1.0"),
        ('"adapter.rank" = { low = 0, high = 8 }', "rank: input should be greater than or equal"),
        (
            '"adapter.rank" = { choices = [1, "x"] }',
            "adapter.rank: input should be a valid integer",
        ),
        ('"model.head" = { low = 1, high = 2 }', "model.head: is no number"),
        ('"model.head" = { choices = ["own"] }', "choices is a list of two or more"),
        ('"model.head" = { choices = ["own", "own"] }', "a choice is there twice"),
        ('"training.epochs" = { choices = [1, 1.0] }', "a choice is there twice"),
        ('"model.head" = { choices = ["own", "last"] }', "model.head: input should be 'own'"),
        ('"adapter.targets" = { choices = [{}, { all = ["q"] }] }', "adapter.targets"),
        ('"data.source" = { choices = ["a", "b"] }', "the data is the same for all trials"),
        ('"training.seed" = { low = 1, high = 9 }', "training.seed: is luck"),
        ('"training.best_metric" = { choices = ["loss", "accuracy"] }', "trials are compared by"),
    ],
)
def test_what_is_wrong_is_said_with_its_name(read, line, message):
    with pytest.raises(SettingsError) as caught:
        read(line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once(read):
    text = "[training]\nrate = 1\nepochs = { low = 0, high = 2 }\n[adapter]\nrank = 3\n"
    with pytest.raises(SettingsError) as caught:
        read(text)
    for part in ("unknown setting training.rate", "training.epochs:", "adapter.rank:"):
        assert part in str(caught.value)


def test_files_that_are_no_space_are_refused(read, tmp_path):
    for text, message in {
        "epochs =": "not valid TOML",
        "": "names no setting",
        '"training.epochs" = { choices = [1, 2] }\n[training]\nepochs = 1': "is there twice",
    }.items():
        with pytest.raises(SettingsError, match=message):
            read(text)
    with pytest.raises(SettingsError, match="no such file"):
        load_space(str(tmp_path / "none.toml"), RECIPE)


def test_rounded_values_stay_in_the_range(read):
    text = '"training.learning_rate" = { low = 0.000123456, high = 0.00123456 }'
    (dimension,) = read(text).dimensions
    assert dimension.round(0.00034567891) == 0.0003457
    for end in dimension.ends:
        assert dimension.low <= dimension.round(end) <= dimension.high
    (stepped,) = read('"dropout.start" = { low = 0.0, high = 0.5, step = 0.1 }').dimensions
    assert stepped.round(0.1 + 2 * 0.1) == 0.3


def test_a_range_ends_at_its_last_step(read):
    (rates,) = read('"dropout.start" = { low = 0.0, high = 0.35, step = 0.1 }').dimensions
    assert (rates.high, rates.steps) == (0.3, [0.0, 0.1, 0.2, 0.3])
    (shares,) = read('"dropout.end" = { low = 0.0, high = 0.3, step = 0.1 }').dimensions
    assert (shares.high, shares.steps) == (0.3, [0.0, 0.1, 0.2, 0.3])
    (ranks,) = read('"adapter.rank" = { low = 1, high = 8, step = 3 }').dimensions
    assert (ranks.high, ranks.steps) == (7, [1, 4, 7])


def test_a_range_beyond_counting_has_no_list(read):
    (rates,) = read(
        '"training.learning_rate" = { low = 1.0, high = 1e308, step = 1e-5 }'
    ).dimensions
    (sizes,) = read('"training.batch_size" = { low = 1, high = 1000000000000 }').dimensions
    assert rates.steps is sizes.steps is None


def test_alpha_keeps_its_ratio_to_the_rank_unless_it_is_said():
    assert change_recipe(RECIPE, {"adapter.rank": 2}, "test").adapter.alpha == 4.0
    both = change_recipe(RECIPE, {"adapter.rank": 2, "adapter.alpha": 9.0}, "test")
    assert (both.adapter.rank, both.adapter.alpha) == (2, 9.0)


def test_an_adapter_of_another_rank_is_as_strong_as_before():
    for variant, power in (("lora", 1.0), ("dora", 1.0), ("rslora", 0.5)):
        recipe = load_recipe("quickstart", [f"adapter.variant={variant}"])
        for rank in (1, 2, 32):
            found = change_recipe(recipe, {"adapter.rank": rank}, "test").adapter
            strength = recipe.adapter.alpha / recipe.adapter.rank**power
            assert found.alpha / rank**power == pytest.approx(strength)


def test_a_sweep_starts_from_the_recipe_where_the_space_has_it(read):
    inside = read("training.epochs.choices = [2, 8]\nadapter.rank = { low = 1, high = 8 }")
    assert inside.find_start(RECIPE) == {"training.epochs": 8.0, "adapter.rank": 8}
    assert read('"training.epochs" = { choices = [2, 4] }').find_start(RECIPE) is None
    assert read('"adapter.rank" = { low = 9, high = 10 }').find_start(RECIPE) is None
    assert read('"adapter.rank" = { low = 1, high = 9, step = 4 }').find_start(RECIPE) is None
    json.dumps(inside.describe())


def test_what_is_fixed_is_not_searched():
    space = load_space("default", load_recipe("quickstart"))
    names = [dimension.name for dimension in space.dimensions]
    left = space.fix(["training.epochs", "data.source"])
    assert [dimension.name for dimension in left.dimensions] == [
        name for name in names if name != "training.epochs"
    ]
    with pytest.raises(SettingsError, match="leaves nothing of the space to search"):
        space.fix(names)
