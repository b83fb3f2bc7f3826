"""Configurations: every fault is answered, all at once; what is written reads back equal."""

import copy
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boundnas.config import MAX_BYTES, RunConfig, read_config, write_config
from boundnas.errors import ConfigError
from boundnas.settings import (
    CostSettings,
    DataSettings,
    ExportSettings,
    PriorSettings,
    SearchSettings,
    SpaceSettings,
    StageSettings,
    StemSettings,
    TrainSettings,
)

HERE = Path(__file__).parent
VALID = (HERE / "config_faults" / "valid.yaml").read_text()
SHIPPED = sorted((HERE.parent / "configs").glob("*.yaml"))
MINIMAL = "name: a\ncost: {lower: 1, upper: 2}\ntrain: {steps: 3}\n"

KEY = r'(?:\(top level\)|(?:[^\s"]|"(?:[^"\\]|\\.)*")+)'

in_one_folder = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a text as the file run.yaml; nothing else may appear beside it."""
    monkeypatch.chdir(tmp_path)

    def read_text(text):
        content = text if isinstance(text, bytes) else text.encode()
        Path("run.yaml").write_bytes(content)
        try:
            return read_config("run.yaml")
        finally:
            assert [path.name for path in Path().iterdir()] == ["run.yaml"]

    return read_text


def problems(read, text):
    """The listed problems of a faulty text, without the heading."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    return check_form(str(caught.value))


def check_form(message):
    heading, *lines = message.split("\n")
    count = re.fullmatch(r"run\.yaml has (\d+) problems?", heading)
    assert count, heading
    assert int(count[1]) == len(lines)
    assert heading.endswith("s") == (len(lines) != 1)
    columns = [re.fullmatch(rf"(  line \d+  +)({KEY}  +)(\S.*)", line) for line in lines]
    assert all(columns), message
    assert len({len(c[1]) for c in columns}) == len({len(c[1] + c[2]) for c in columns}) == 1
    numbers = [int(c[1].split()[1]) for c in columns]
    assert numbers == sorted(numbers)
    for foreign in ("pydantic", "ruamel", "Input should", "validation error", "object at", "_type"):
        assert foreign not in message
    return lines


# The table of faults ---------------------------------------------------------------------------


def cases():
    """Cases of ``cases.txt``: lines taken out (-), lines put in (+), and the message (!)."""
    text = (HERE / "config_faults" / "cases.txt").read_text()
    for case in text.strip("\n").split("\n\n"):
        title, *lines = case.split("\n")
        edits = []
        for mark, line in ((line[0], line[2:]) for line in lines):
            if mark == "-":
                if not edits or edits[-1][1]:
                    edits.append(([], []))
                edits[-1][0].append(line)
            elif mark == "+":
                edits[-1][1].append(line)
        message = "\n".join(line[2:] for line in lines if line[0] == "!")
        yield pytest.param(edits, message, id=title[2:])


def edited(text, old, new):
    """The text with the first occurrence of some lines exchanged, at their indentation."""
    pattern = r"^( *)" + r"\n\1".join(map(re.escape, old)) + r"\n"
    match = re.search(pattern, text, re.MULTILINE)
    assert match, old
    lines = "".join(f"{match[1]}{line}\n" for line in new)
    return text[: match.start()] + lines + text[match.end() :]


@pytest.mark.parametrize(("edits", "message"), list(cases()))
def test_each_fault_is_answered_with_its_message(read, edits, message):
    text = VALID
    for old, new in edits:
        text = edited(text, old, new)
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value) == message
    check_form(message)


SECTIONS = {
    "data": DataSettings,
    "space": SpaceSettings,
    "cost": CostSettings,
    "train": TrainSettings,
    "search": SearchSettings,
    "export": ExportSettings,
}
FIELDS = [
    *(f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.model_fields),
    *(name for name in RunConfig.model_fields if name not in SECTIONS),
]


@pytest.mark.parametrize("key", FIELDS)
def test_no_field_takes_a_value_of_another_kind(read, key):
    *section, name = key.split(".")
    kind = SECTIONS[section[0]] if section else RunConfig
    annotation = kind.model_fields[name].annotation
    switch = bool in (annotation, *get_args(annotation))
    for value in (
        "{}",
        "1" if switch else "true",
        '""',
        "-1e-3",
        ".nan",
        "-.inf",
        "[[]]",
        "{a: 1}",
        "1e400",
    ):
        text = f"{section[0]}:\n  {name}: {value}\n" if section else f"{name}: {value}\n"
        start = f"  line {len(section) + 1}  {key}"
        assert any(row.startswith(start) for row in problems(read, text)), value


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "line 1  name   required"),
        (b"# nothing\n\n", "line 1  train  required"),
        (b"---\n", "line 1  cost   required"),
        (b"null\n", "line 1  name   required"),
        (b"- a\n- b\n", "line 1  (top level)  must be a mapping with keys such as name, seed"),
        (b"just text\n", 'found "just text"'),
        (b"3\n", "found 3"),
        (b"{}\n", "line 1  name   required"),
        (b"*x\n", "line 1  (top level)  aliases are not used here"),
        (b"!!python/none\n", "line 1  (top level)  tags are not used here"),
        (b"name: a\nseed: \xff\n", "line 2  (top level)  not UTF-8 text, found the byte 0xff"),
        ("name: a\n".encode("utf-16"), "line 1  (top level)  not UTF-8 text"),
        (b"name: a\nseed: \x00\n", 'YAML cannot hold the character "\\x00"; remove it'),
        (b"name: \x1b[31m\n", "line 1  (top level)  YAML cannot hold the character"),
        (b"%", "line 1  (top level)  "),
        (b"[", "line 1  (top level)  "),
        (b"a: {", "line 1  (top level)  "),
    ],
)
def test_a_file_that_is_no_configuration_is_answered(read, content, expected):
    assert expected in "\n".join(problems(read, content))


def test_paths_that_cannot_be_read_are_answered(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist; give the path"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder, where a regular file should be"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be read \(embedded null byte\)"):
        read_config("a\0b")
    (tmp_path / "plain").touch()
    with pytest.raises(ConfigError, match=r"cannot be read \(Not a directory\)"):
        read_config(tmp_path / "plain" / "run.yaml")


def test_a_file_beyond_the_size_limit_is_refused_and_one_within_it_read(read):
    padded = MINIMAL + "#" * (MAX_BYTES - len(MINIMAL))
    assert read(padded).name == "a"
    with pytest.raises(ConfigError, match=r"run\.yaml: has 65,537 bytes or more, at most 65,536"):
        read(padded + "#")


@pytest.mark.parametrize("value", ["1e-320", "1e-45", "9e-07", "0"])
def test_a_temperature_that_float32_cannot_be_divided_by_is_refused(value, read):
    with pytest.raises(
        ConfigError, match=rf"train\.start_temperature .*1e-06 to 1,000 .*, found {value}"
    ):
        read(VALID.replace("steps: 2000", f"steps: 2000\n  start_temperature: {value}"))


def test_a_thousand_faults_are_counted_and_a_hundred_listed(read):
    with pytest.raises(ConfigError) as caught:
        read(MINIMAL + "".join(f"key{i}: 1\n" for i in range(1000)))
    lines = str(caught.value).split("\n")
    assert lines[0] == "run.yaml has 1000 problems"
    assert lines[-1] == "  and 900 more"
    assert len(lines) == 102


# Reading ----------------------------------------------------------------------------------------


def test_the_valid_file_reads_with_every_value_in_place(read):
    config = read(VALID)
    assert config.name == "shop-camera"
    assert (config.seed, config.device, config.threads) == (7, "cpu", 2)
    assert config.data.folder == "photos/train"
    assert config.space.stem == StemSettings(width=(8, 16), kernel=(3, 5), stride=2)
    assert config.space.stages is not None
    assert config.space.stages[0] == StageSettings(intermediate=(16,), output=(8, 16), stride=1)
    assert config.space.stages[1].se == (False, True)
    assert config.cost == (CostSettings(lower=1.5, upper=60),)
    assert config.train == TrainSettings(steps=2000)
    assert config.export.formats == ("onnx",)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("1e-3", 1e-3), ("1E-3", 1e-3), ("1.e-3", 1e-3), ("+1e-3", 1e-3), (".001", 1e-3)],
        *[("1", 1.0), ("1.", 1.0), ("0x10", 16.0), ("0o17", 15.0), ("017", 17.0), ("2e+1", 20.0)],
    ],
)
def test_numbers_read_by_the_rules_of_yaml_1_2(read, text, number):
    assert read(MINIMAL.replace("steps: 3", f"epochs: {text}")).train.epochs == number


def test_words_that_yaml_1_1_took_for_switches_are_text(read):
    for word in ("no", "yes", "on", "off", "y"):
        assert read(MINIMAL.replace("name: a", f"name: {word}")).name == word


def test_sections_with_every_line_commented_out_take_their_defaults(read):
    assert read(MINIMAL + "search:\n  # rounds: 3\nspace:\n") == read(MINIMAL)


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(read):
    assert read(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode()) == read(MINIMAL)


def test_nothing_in_an_optional_place_means_left_out(read):
    assert read(MINIMAL + "threads: ~\nspace: {stem: null}\n") == read(MINIMAL)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_read_and_explain_each_line(path):
    assert read_config(path).name == path.stem
    lines = path.read_text().splitlines()
    assert all(" # " in line or line.endswith(":") for line in lines if line and line[0] != "#")


PAPER = {
    "cifar10": (256, 0.1, 5e-4, None),
    "cifar100": (256, 0.1, 5e-4, None),
    "imagenet_d": (1024, 0.4, 1e-5, None),
    "imagenet": (1024, 0.4, 1e-5, 224),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_experiments_of_the_paper_have_its_settings(name):
    config = read_config(HERE.parent / "configs" / f"{name}.yaml")
    batch_size, learning_rate, weight_decay, image_size = PAPER[name]
    assert (config.data.set, config.data.image_size) == (name, image_size)
    assert config.space == SpaceSettings(family="mobilenet_v2", dropout=0.2, drop_connect=0.2)
    assert config.cost == (CostSettings(metric="macs", lower=10, upper=90),)
    assert config.train == TrainSettings(
        epochs=120,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        momentum=0.9,
        policy_learning_rate=5e-4,
        ghost_fraction=1,
    )
    assert config.search == SearchSettings(
        initial=256, rounds=20, crossovers=128, mutations=128, mutation_probability=0.1
    )


# Writing ----------------------------------------------------------------------------------------


def numbers(low, high, **limits):
    return st.floats(low, high, **limits) | st.integers(int(low) + 1, max(int(high), 1))


def choices(element):
    return st.lists(element, min_size=1, max_size=6, unique=True).map(sorted).map(tuple)


stems = st.builds(
    StemSettings,
    width=choices(st.integers(1, 65_536)),
    kernel=choices(st.sampled_from((1, 3, 5, 31))),
    stride=st.sampled_from((1, 2)),
)
stages = st.builds(
    StageSettings,
    intermediate=choices(st.integers(1, 65_536)),
    output=choices(st.integers(1, 65_536)),
    depth=choices(st.integers(1, 64)),
    se=choices(st.booleans()),
    activation=choices(st.sampled_from(("relu", "swish"))),
    stride=st.sampled_from((1, 2)),
)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
priors = st.builds(
    PriorSettings,
    dimensions=st.from_regex(r"[A-Za-z0-9._*?-]{1,20}", fullmatch=True),
    smallest=numbers(0, 5),
    largest=st.none() | numbers(5, 1e9),
)
configs = st.builds(
    RunConfig,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
    | st.sampled_from(("null", "true", "1e5", "0x1", "12", "no", "False", "a", "1.", "0o7")),
    seed=st.integers(0, 2**63 - 1),
    device=st.sampled_from(("auto", "cpu", "cuda")),
    threads=st.none() | st.integers(1, 64),
    data=st.just(DataSettings())
    | st.builds(DataSettings, set=st.just("folder"), folder=texts, image_size=st.just(64)),
    space=st.builds(
        SpaceSettings,
        width=st.floats(1e-9, 4),
        dropout=st.floats(0, 0.999),
        stem=st.none() | stems,
        stages=st.none() | st.lists(stages, min_size=1, max_size=3).map(tuple),
    ),
    cost=st.builds(CostSettings, lower=numbers(1e-12, 1), upper=numbers(2, 1e9)),
    train=st.builds(
        TrainSettings,
        epochs=numbers(1e-300, 1e6),
        bounds=st.sampled_from(("whole", "from_cost")),
        tau=st.floats(0.01, 0.99),
        estimator=st.sampled_from(("straight_through", "score_function", "measure_valued")),
        random_choice=st.sampled_from(("uniform", "best_up", "worst_up")),
        policy_every=st.integers(1, 10**6),
        clip_value=st.none() | numbers(1e-9, 1e6),
        prior=st.none() | st.lists(priors, min_size=1, max_size=3).map(tuple),
    ),
    search=st.builds(
        SearchSettings, rounds=st.integers(0, 10**5), screen=st.none() | st.floats(0.01, 0.99)
    ),
    export=st.builds(ExportSettings, formats=st.sampled_from(((), ("pt2",), ("pt2", "onnx")))),
)


@in_one_folder
@given(config=configs)
def test_what_is_written_reads_back_equal(read, config):
    text = write_config(config)
    again = read(text)
    assert again == config
    assert write_config(again) == text


def test_equal_configurations_are_written_alike_and_hash_alike(read):
    short, full = read(MINIMAL), read(write_config(read(MINIMAL)))
    assert write_config(short) == write_config(full)
    assert hash(short) == hash(full)


# Every mutation of a valid file -----------------------------------------------------------------


def places(value, path=()):
    """Paths of all values inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def as_lists(value):
    return json.loads(json.dumps(value))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**80), 10**80)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(("relu", "macs", "1e-3", "64", "{here}", "{text}", "%s", "lr", "cost"))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw):
    """A valid configuration with up to four places deleted, renamed or replaced, as JSON."""
    tree = as_lists(draw(configs).model_dump(exclude_none=True))
    for _ in range(draw(st.integers(1, 4))):
        *path, last = draw(st.sampled_from(list(places(tree)) or [("name",)]))
        parent = tree
        for key in path:
            parent = parent[key]
        if (action := draw(st.sampled_from(("delete", "rename", "replace")))) == "replace":
            parent[last] = draw(values)
        elif isinstance(parent, list):
            parent.insert(last, draw(values))
        else:
            value = parent.pop(last, None)
            if action == "rename":
                parent[draw(st.text(max_size=12) | st.sampled_from(("lr", "seed")))] = value
    return json.dumps(tree, indent=1, ensure_ascii=draw(st.booleans()))


def reads_or_answers(read, text):
    try:
        assert isinstance(read(text), RunConfig)
    except ConfigError as error:
        check_form(str(error))


@in_one_folder
@given(text=mutated())
def test_a_mutated_configuration_reads_or_is_answered(read, text):
    reads_or_answers(read, text.encode("utf-8", "surrogatepass"))


@in_one_folder
@given(
    at=st.integers(0, len(VALID)),
    length=st.integers(0, 30),
    inserted=st.text(
        st.sampled_from("[]{}:,-?&*!|>'\"%@`# \t\n\\ax1.~<\u2028\x85\ufeff"), max_size=9
    ),
)
def test_a_mangled_text_reads_or_is_answered(read, at, length, inserted):
    reads_or_answers(read, VALID[:at] + inserted + VALID[at + length :])


@in_one_folder
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_answered(read, content):
    reads_or_answers(read, content)


# Settings without a file ------------------------------------------------------------------------


def test_settings_made_in_python_list_all_their_faults_too():
    with pytest.raises(ConfigError) as caught:
        TrainSettings(steps=True, epochs=2, batch_size="12", lamda=3)
    heading, *rows = str(caught.value).split("\n")
    assert heading == "TrainSettings has 3 problems"
    assert rows[0].startswith("  steps       must be a whole number from 1 to 1,000,000,000 (")
    assert rows[1].endswith('found "12"; write 12 without quotes')
    assert rows[2] == "  lamda       unknown key; did you mean penalty_weight?"


def test_settings_inside_settings_name_their_place():
    with pytest.raises(ConfigError, match=r"\n  cost\.upper  1 is not above cost\.lower = 2 .both"):
        RunConfig(name="a", cost={"lower": 2, "upper": 1}, train={"steps": 1})


def test_an_integer_too_large_for_a_float_is_refused():
    with pytest.raises(ConfigError, match="found a number of more than 30 digits"):
        CostSettings(lower=1, upper=10**5000)


def test_lists_and_tuples_are_both_taken_and_kept_as_tuples():
    assert StemSettings(width=[8, 16], stride=1) == StemSettings(width=(8, 16), stride=1)
    assert StemSettings(width=[8, 16], stride=1).width == (8, 16)


@pytest.mark.parametrize("value", [{8, 16}, range(8, 9), "8", iter([8])])
def test_no_other_collection_is_taken_for_a_list(value):
    with pytest.raises(ConfigError, match="width  must be a list"):
        StemSettings(width=value, stride=1)


def test_settings_are_frozen_and_survive_copying():
    train = TrainSettings(steps=5)
    with pytest.raises(ValueError, match="frozen"):
        train.steps = 6
    assert copy.deepcopy(train) == train


@pytest.mark.parametrize(
    "kind", [*SECTIONS.values(), StemSettings, StageSettings, PriorSettings, RunConfig]
)
def test_every_field_is_described_in_one_line(kind):
    for name, field in kind.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description
        assert not field.description.endswith(".")


def test_a_key_of_an_earlier_release_is_read_where_it_changed_nothing(read):
    section = "search: {rounds: 3, give_up: null}\n"
    assert read(MINIMAL + section) == read(MINIMAL + "search: {rounds: 3}\n")
    with pytest.raises(ConfigError, match=r"search\.give_up\s+unknown key"):
        read(MINIMAL + section.replace("null", "1.0"))
