"""The options of readers and responses, each checked where it is given."""

import math
from typing import Any

import pytest

from sse_asgi import Hub, ServerSentEvent
from sse_asgi._hub import options as checks
from sse_asgi._hub.options import NOT_GIVEN, Options

pytestmark = pytest.mark.anyio

BAD_NAMES = ["", "a\nb", "a\0", "\x7f", "\x85", "x" * 513, "é" * 257, "\ud800"]
GOOD_NAMES = ["a", "room:42/é😀 \u2028", "x" * 512, "é" * 256, "sse", " "]


# Channels


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_bad_channel_names_are_refused(name: str) -> None:
    """Empty, too long, or unprintable: ValueError, for readers and publishers."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="channel"):
            await hub.publish(name, "x")
        with pytest.raises(ValueError, match="channel"):
            hub.subscribe(name)


@pytest.mark.parametrize("name", GOOD_NAMES)
async def test_any_other_channel_name_works(name: str) -> None:
    """Names are taken verbatim."""
    async with Hub() as hub, hub.subscribe(name) as subscription:
        await hub.publish(name, "x")
        assert (await anext(subscription)).channels == (name,)


@pytest.mark.parametrize("channels", [b"a", 3, None, [b"a"], [1]])
async def test_channels_of_a_wrong_type_are_refused(channels: Any) -> None:
    """A channel is a str."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match="str"):
            await hub.publish(channels, "x")


async def test_at_least_one_channel_is_needed() -> None:
    """No channel: ValueError."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="at least one"):
            await hub.publish([], "x")
        with pytest.raises(ValueError, match="at least one"):
            hub.subscribe()


async def test_a_list_given_to_subscribe_is_explained() -> None:
    """To subscribe one gives names, not a list of them, and the error says so."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=r"subscribe\('a', 'b'\)"):
            hub.subscribe(["a", "b"])  # type: ignore[arg-type]


# Options


@pytest.mark.parametrize(
    "options",
    [
        {"buffer_size": 0},
        {"buffer_bytes": 0},
        {"overflow": "explode"},
        {"ping_interval": 0},
        {"ping_interval": -1.0},
    ],
)
async def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """A wrong value is refused where it is given, and the message has it."""
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        Hub(**options)


@pytest.mark.parametrize("seconds", ["15", True, [1]])
async def test_seconds_are_a_number(seconds: Any) -> None:
    """Another type is a TypeError that names the option."""
    with pytest.raises(TypeError, match="ping_interval must be a number of seconds or None"):
        Hub(ping_interval=seconds)


async def test_events_of_history_are_no_initial_ones() -> None:
    """They have positions in the log; the error names the option that begins with them."""
    async with Hub() as hub:
        await hub.publish("a", "x")
        with pytest.raises(ValueError, match="give rewind=n instead"):
            hub.subscribe("a", initial=await hub.history("a"))


async def test_unknown_options_are_refused() -> None:
    """A misspelt option is a TypeError."""
    with pytest.raises(TypeError):
        Hub(bufer_size=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("option", ["key", "idempotency_key"])
async def test_a_key_that_cannot_be_written_is_refused(option: str) -> None:
    """A key is text, on every backend."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=f"^{option} must be a str .got int.: give str"):
            await hub.publish("a", "1", **{option: 7})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"^{option}='.ud800' has a lone surrogate"):
            await hub.publish("a", "1", **{option: "\ud800"})  # type: ignore[arg-type]
        await hub.publish("a", "1", **{option: "ä"})  # type: ignore[arg-type]


def test_not_given_is_readable_in_a_signature() -> None:
    """Its repr is its name, and it is one object."""
    assert repr(NOT_GIVEN) == "NOT_GIVEN"
    assert type(NOT_GIVEN)("not given") is NOT_GIVEN


def test_a_reader_without_anything_of_its_own_shares_the_options() -> None:
    """Properties or an identity make a copy with everything else the same."""
    options = Options(buffer_size=3)
    assert options.for_reader(None, None, ()) is options
    assert options.for_reader(7, None, ()) == options._replace(properties=7)
    assert options.for_reader(None, "ada", ("a",)) == options._replace(identity="ada", presence=("a",))


@pytest.mark.parametrize(
    ("identity", "error"), [(7, TypeError), ("", ValueError), ("a\nb", ValueError), ("é" * 257, ValueError)]
)
def test_an_identity_could_be_the_name_of_a_channel(identity: Any, error: type[Exception]) -> None:
    """Any other identity is refused, and None is allowed."""
    with pytest.raises(error, match="identity"):
        Options().for_reader(None, identity, ())
    checks.check_identity(None)


def test_presence_needs_an_identity() -> None:
    """There would be nothing to list."""
    with pytest.raises(ValueError, match="presence=True needs identity="):
        Options().for_reader(None, None, ("a",))


@pytest.mark.parametrize(
    ("wanted", "listed"), [(True, ("a", "b")), (False, ()), ("a", ("a",)), (["b"], ("b",)), ([], ())]
)
def test_a_reader_is_listed_on_its_own_channels(wanted: Any, listed: tuple[str, ...]) -> None:
    """True is all of them."""
    assert checks.listed_channels(("a", "b"), wanted) == listed


def test_a_reader_is_not_listed_elsewhere() -> None:
    """A channel that it does not read is a ValueError."""
    with pytest.raises(ValueError, match="presence must name channels of the subscription"):
        checks.listed_channels(("a",), "other")


@pytest.mark.parametrize("rewind", [0, 3, 2.0, math.inf])
def test_a_rewind_is_a_number_of_events(rewind: float) -> None:
    """It may be infinite."""
    assert checks.check_rewind("rewind", rewind) == rewind


@pytest.mark.parametrize(
    ("rewind", "error"),
    [(-1, ValueError), (1.5, ValueError), (math.nan, ValueError), (True, TypeError), ("3", TypeError)],
)
def test_other_rewinds_are_refused(rewind: Any, error: type[Exception]) -> None:
    """They are not whole, negative, or not numbers."""
    with pytest.raises(error, match="rewind must be"):
        checks.check_rewind("rewind", rewind)


async def _snapshot(_subscription: Any) -> str:
    return "x"


async def _plain_snapshot() -> str:
    return "x"


def test_a_rewind_and_a_snapshot_exclude_each_other() -> None:
    """The snapshot replaces the events that the rewind would send."""
    with pytest.raises(ValueError, match="rewind and snapshot exclude each other"):
        checks.check_options(Options(rewind=1, snapshot=_plain_snapshot))


def test_a_snapshot_may_take_its_subscription() -> None:
    """Functions of no argument and of one are distinguished; any other is refused."""
    assert checks.is_personal(_snapshot)
    assert not checks.is_personal(_plain_snapshot)
    assert not checks.is_personal(None)
    with pytest.raises(TypeError, match=r"snapshot must be a function of \(subscription\)"):
        checks.is_personal(lambda _one, _two: _plain_snapshot())


@pytest.mark.parametrize("value", [7, "x", _plain_snapshot.__name__])
def test_a_function_is_not_called_before_it_is_given(value: Any) -> None:
    """The result of a call is refused, and the error says so."""
    with pytest.raises(TypeError, match=r"must be a function .*pass the function without calling it"):
        checks.check_callable("transform", value)


def test_a_function_whose_signature_is_unknown_is_accepted() -> None:
    """Some functions that are written in C have none."""
    assert checks.check_callable("transform", type, "event", "properties") is type
    assert checks.check_callable("transform", None, "event") is None


def test_seconds_may_be_never() -> None:
    """None is an infinite time."""
    assert checks.seconds_or_never("ping_interval", None) == math.inf
    assert checks.seconds_or_never("ping_interval", 2) == 2


def test_an_unknown_option_is_asked_about() -> None:
    """The error names similar options, or else all."""
    known = ["channels", "cors_origins", "cors_headers"]
    checks.check_known("EventSourceApp", ["channels"], known)
    for given, advice in (
        ("chanels", "channels="),
        ("cors", "cors_headers= or cors_origins="),
        ("zzz", "known: channels"),
    ):
        with pytest.raises(TypeError, match=rf"EventSourceApp has no option {given}=: .*{advice}"):
            checks.check_known("EventSourceApp", [given], known)


@pytest.mark.parametrize("values", ["x", b"x", {"a": 1}, ServerSentEvent("x"), 7])
def test_initial_is_a_collection_of_events(values: Any) -> None:
    """A single event is refused, because a str and a dict could be taken for collections."""
    with pytest.raises(TypeError, match=r"initial must be a collection of events, as in initial=\[\.\.\.\]"):
        checks.initial_events(values)


def test_initial_events_have_no_id() -> None:
    """Data becomes events, and an id is refused."""
    assert checks.initial_events(["x", ServerSentEvent("y")]) == (ServerSentEvent("x"), ServerSentEvent("y"))
    with pytest.raises(ValueError, match="without an id"):
        checks.initial_events([ServerSentEvent("x", id="7")])


@pytest.mark.parametrize("name", ["sse.", "sse.join"])
def test_names_of_the_library_are_reserved(name: str) -> None:
    """Neither a channel nor a type may begin as they do."""
    with pytest.raises(ValueError, match="choose another name"):
        checks.check_public(("a", name))
    with pytest.raises(ValueError, match="choose another one"):
        checks.check_type(name)
    assert checks.check_public(("a", "sse")) == ("a", "sse")
    checks.check_type(None)


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, "5", True, None])
def test_a_drain_timeout_is_finite(value: Any) -> None:
    """The message names the option, the value, and the meaning of 0."""
    with pytest.raises(ValueError, match=r"drain_timeout must be .* \(got .*\): 0 ends streams at once"):
        checks.check_drain_timeout(value)
    assert checks.check_drain_timeout(0) == 0.0
    assert checks.check_drain_timeout(2) == 2.0


@pytest.mark.parametrize("until", ["done", "message", "two words", None])
def test_until_is_the_type_of_an_event(until: str | None) -> None:
    """Any type that can be published, or none."""
    checks.check_until(until)


@pytest.mark.parametrize("until", [("done", "failed"), b"done", 1, True, ServerSentEvent("x", event="done")])
def test_until_of_a_wrong_type_is_refused(until: Any) -> None:
    """The error says what to do with several types."""
    with pytest.raises(TypeError, match=r"as in until='done' .*: give every ending one type"):
        Hub()._reader_options(until=until)


@pytest.mark.parametrize(
    ("until", "why"),
    [
        ("sse.end", "begin with 'sse.' are the library's own: choose another"),
        ("", "no listener would hear it"),
        ("a\nb", "line"),
        ("\ud800", "surrogate"),
    ],
)
def test_until_is_a_type_that_can_be_published(until: str, why: str) -> None:
    """Another one would never come, and the error says why."""
    with pytest.raises(ValueError, match=rf"until must be the type of an event that you publish .*{why}"):
        Hub()._reader_options(until=until)
