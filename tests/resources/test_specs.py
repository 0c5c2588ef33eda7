"""What is the same resource.

The tests named `agentfly` hold what was measured to go wrong in AgentFly's resource engine
(specs/agentfly.md 4.2 and 4.3).
"""

from __future__ import annotations

import copy
import enum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from resources.games import Game, GameSpec, acquire, until

from guerdon.errors import ConfigError
from guerdon.resources import Context, EndpointSpec, Resources, SandboxFusionSpec, ServerSpec, Spec


def test_agentfly_two_specs_in_one_rollout_are_two_resources(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        one = acquire(context, GameSpec(level=1))
        two = acquire(context, GameSpec(level=2))
        assert (one.level, two.level) == (1, 2)
        assert [game.number for game in context.held] == [one.number, two.number]


def test_agentfly_init_arguments_are_part_of_the_identity(resources: Resources) -> None:
    with Context("r1", resources=resources) as context:
        acquire(context, GameSpec())
    with Context("r2", resources=resources) as context:
        assert acquire(context, GameSpec(level=99)).level == 99


def test_agentfly_rollout_and_global_are_two_resources_and_both_end(resources: Resources) -> None:
    spec = GameSpec(reset="cannot")
    with Context("r", resources=resources) as context:
        own = acquire(context, spec)
        shared = acquire(context, spec, scope="global")
        assert own is not shared
    until(lambda: own.events[-1] == "stop")
    assert "stop" not in shared.events
    resources.close()
    assert shared.events[-1] == "stop"


def test_the_same_spec_is_the_same_resource_within_a_rollout(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        one = acquire(context, GameSpec(options={"a": [1, 2], "b": 2}))
        assert acquire(context, GameSpec(options={"b": 2, "a": [1, 2]})) is one
        assert acquire(context, GameSpec(name="second")) is not one
    other = Context("s", resources=resources)
    with other as context, Context("t", resources=resources) as third:
        spec = GameSpec(options={"a": 1})
        assert acquire(context, spec) is not acquire(third, spec)


def equal(one: Spec[Any], other: Spec[Any]) -> bool:
    """Whether they are; both operators must say the same."""
    assert (one == other) is not (one != other)
    return one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": "1"}, {"a": 1}),
        ({"a": b"1"}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": []}, {"a": {}}),
    ],
)
def test_specs_that_only_look_alike_are_different(one: Any, other: Any) -> None:
    assert GameSpec(options=one).key != GameSpec(options=other).key
    assert not equal(GameSpec(options=one), GameSpec(options=other))


def test_a_subclass_with_the_same_fields_is_another_kind() -> None:
    class Other(GameSpec, frozen=True):
        pass

    assert Other().key != GameSpec().key


def test_a_spec_of_something_live_is_refused(resources: Resources) -> None:
    spec = GameSpec(options={"client": object()})
    with (
        Context(resources=resources) as c,
        pytest.raises(ConfigError, match=r"options\['client'\]"),
    ):
        acquire(c, spec)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        GameSpec().level = 2  # type: ignore[misc]


class Size(msgspec.Struct, frozen=True):
    width: int = 1
    tags: tuple[Any, ...] = ()


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"path": Path("/a/b")}, {"path": Path("/a/c")}),
        ({"path": Path("/a")}, {"path": "/a"}),
        ({"env": {"HOME": "/a", "X": ""}}, {"env": {"HOME": "/a"}}),
        ({"deep": [{"a": [1, {"b": 2}]}]}, {"deep": [{"a": [1, {"b": 3}]}]}),
        ({"size": Size(tags=({"a": 1},))}, {"size": Size(tags=({"a": 2},))}),
        ({"colour": Colour.RED}, {"colour": Colour.BLUE}),
        ({"set": {1, 2}}, {"set": {1, 2, 3}}),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_the_content_of_a_spec_is_its_identity(
    resources: Resources, one: dict[Any, Any], other: dict[Any, Any]
) -> None:
    again = copy.deepcopy(one)
    assert GameSpec(options=one) == GameSpec(options=again)
    assert hash(GameSpec(options=one)) == hash(GameSpec(options=again))
    assert GameSpec(options=one) != GameSpec(options=other)
    with Context(resources=resources) as context:
        first = context.acquire_resource_sync(GameSpec(options=one))
        assert context.acquire_resource_sync(GameSpec(options=again)) is first
        assert context.acquire_resource_sync(GameSpec(options=other)) is not first
        assert first.spec.options == one


def test_what_is_live_in_a_nested_struct_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"options\['size'\]\.tags is a object"):
        _ = GameSpec(options={"size": Size(tags=(object(),))}).key


def test_a_mapping_that_is_changed_later_makes_another_spec(resources: Resources) -> None:
    options = {"level": [1]}
    spec = GameSpec(options=options)
    with Context("r1", resources=resources) as one, Context("r2", resources=resources) as two:
        assert one.acquire_resource_sync(spec).spec.options == {"level": [1]}
        options["level"].append(2)
        assert two.acquire_resource_sync(spec).spec.options == {"level": [1, 2]}
        plain = GameSpec(options={"level": [1]})
        assert two.acquire_resource_sync(plain).spec.options == {"level": [1]}
    assert len(resources.status()) == 2


def kind_of(level: int) -> type[GameSpec]:
    """As the cell of a notebook that is run again: another class of the same name."""

    class Made(Game):
        def told(self) -> int:
            return level

    class MadeSpec(GameSpec, frozen=True):
        def make(self) -> Game:
            return Made(self)

    return MadeSpec


def test_a_class_that_is_defined_again_is_another_kind(resources: Resources) -> None:
    first, second = kind_of(1)(), kind_of(2)()
    assert not equal(first, second)
    assert equal(first, type(first)())
    with Context(resources=resources) as context:
        found: list[Any] = [context.acquire_resource_sync(spec) for spec in (first, second)]
        assert [game.told() for game in found] == [1, 2]


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        (EndpointSpec(url="http://a", token="s3cret"), "token=..."),
        (EndpointSpec(url="http://a"), "token=None"),
        (SandboxFusionSpec(url="http://a", token="s3cret"), "token=..."),
        (ServerSpec(argv=("x", "{port}"), environment={"KEY": "s3cret"}), "environment=..."),
        (GameSpec(level=3), "level=3"),
    ],
)
def test_what_is_secret_is_not_shown(spec: Spec[Any], shown: str) -> None:
    for text in (repr(spec), str(spec), f"{[spec]}"):
        assert "s3cret" not in text
    assert repr(spec).startswith(f"{type(spec).__name__}(name=None, pool=Pool(")
    assert shown in repr(spec)
