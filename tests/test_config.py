"""Settings and create_hub(): from variables in the environment to a hub that is not open yet."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.config import Config

from sse_asgi import MemoryBackend, create_hub
from sse_asgi.config import Settings


def settings(**variables: str) -> Settings:
    """Read settings from these variables alone."""
    return Settings.from_environment(Config(environ=variables))


# Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    """Without any variable, every setting has its default."""
    assert settings() == Settings(
        backend_url="memory://",
        hub_name="default",
        history_size=1000,
        history_ttl=3600.0,
        buffer_size=256,
        buffer_bytes=1 << 20,
        overflow="replay",
        ping_interval=15.0,
    )


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("SSE_BACKEND_URL", "memory://?history_size=5", "memory://?history_size=5"),
        ("SSE_HUB_NAME", "chat", "chat"),
        ("SSE_HISTORY_SIZE", "0", 0),
        ("SSE_HISTORY_SIZE", "50", 50),
        ("SSE_HISTORY_TTL", "0.5", 0.5),
        ("SSE_HISTORY_BYTES", "4096", 4096),
        ("SSE_TOTAL_BYTES", "4096", 4096),
        ("SSE_BUFFER_SIZE", "1", 1),
        ("SSE_MAX_RUNS", "1", 1),
        ("SSE_BUFFER_BYTES", "4096", 4096),
        ("SSE_OVERFLOW", "replay", "replay"),
        ("SSE_OVERFLOW", "close", "close"),
        ("SSE_OVERFLOW", "drop_oldest", "drop_oldest"),
        ("SSE_OVERFLOW", "latest", "latest"),
        ("SSE_PING_INTERVAL", "0", 0.0),
        ("SSE_PING_INTERVAL", "2.5", 2.5),
        ("SSE_PATTERNS", "orders.*, *.eu", ("orders.*", "*.eu")),
        ("SSE_PRESENCE_TTL", "3.5", 3.5),
        ("SSE_PRESENCE_GRACE", "0", 0.0),
    ],
)
def test_each_variable_is_one_setting(variable: str, text: str, value: object) -> None:
    """A variable sets the setting of its name, with the right type, and no other setting."""
    name = variable.removeprefix("SSE_").lower()
    read = settings(**{variable: text})
    assert getattr(read, name) == value
    assert type(getattr(read, name)) is type(value)
    assert read == Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("SSE_HUB_NAME", "a{b", "a name without braces"),
        ("SSE_HUB_NAME", "a}b", "a name without braces"),
        ("SSE_HISTORY_SIZE", "-1", "a whole number of events, 0 to 9223372036854775807"),
        ("SSE_HISTORY_SIZE", "many", "a whole number of events, 0 to 9223372036854775807"),
        ("SSE_HISTORY_SIZE", "1.5", "a whole number of events, 0 to 9223372036854775807"),
        ("SSE_HISTORY_TTL", "0", "seconds above 0 and at most 10000000000"),
        ("SSE_HISTORY_TTL", "-1", "seconds above 0 and at most 10000000000"),
        ("SSE_HISTORY_TTL", "nan", "seconds above 0 and at most 10000000000"),
        ("SSE_HISTORY_TTL", "inf", "seconds above 0 and at most 10000000000"),
        ("SSE_HISTORY_TTL", "1h", "seconds above 0 and at most 10000000000"),
        ("SSE_HISTORY_TTL", "1e11", "seconds above 0 and at most 10000000000"),
        ("SSE_HISTORY_SIZE", "9223372036854775808", "a whole number of events, 0 to 9223372036854775807"),
        ("SSE_BUFFER_SIZE", "0", "a whole number of events, at least 1"),
        ("SSE_BUFFER_SIZE", "x", "a whole number of events, at least 1"),
        ("SSE_BUFFER_BYTES", "0", "a whole number of bytes, at least 1"),
        ("SSE_BUFFER_BYTES", "1k", "a whole number of bytes, at least 1"),
        ("SSE_OVERFLOW", "drop", "one of replay, close, drop_oldest, latest"),
        ("SSE_OVERFLOW", "REPLAY", "one of replay, close, drop_oldest, latest"),
        ("SSE_PING_INTERVAL", "-1", "a number of seconds, 0 for no pings"),
        ("SSE_PING_INTERVAL", "nan", "a number of seconds, 0 for no pings"),
        ("SSE_PING_INTERVAL", "inf", "a number of seconds, 0 for no pings"),
        ("SSE_PING_INTERVAL", "off", "a number of seconds, 0 for no pings"),
        ("SSE_PATTERNS", "orders", "channel names with a *, separated by commas"),
        ("SSE_PATTERNS", "a*,,b*", "channel names with a *, separated by commas"),
        ("SSE_PRESENCE_TTL", "0", "a number of seconds above 0"),
        ("SSE_PRESENCE_TTL", "inf", "a number of seconds above 0"),
        ("SSE_PRESENCE_GRACE", "-1", "a number of seconds, 0 for none"),
        ("SSE_PRESENCE_GRACE", "nan", "a number of seconds, 0 for none"),
    ],
)
def test_a_wrong_value_is_named(variable: str, text: str, allowed: str) -> None:
    """A value that is not allowed is a ValueError with the variable, the value and the allowed values."""
    with pytest.raises(ValueError, match="must be") as caught:
        settings(**{variable: text})
    assert str(caught.value) == f"{variable}={text!r}: must be {allowed}"


def test_an_empty_variable_is_the_default() -> None:
    """An empty variable, as compose files have them, counts as not set."""
    assert settings(SSE_HISTORY_SIZE="", SSE_OVERFLOW="") == Settings()


def test_other_variables_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """A variable that is not a setting and does not resemble one is ignored without a warning."""
    variables = {"HISTORY_SIZE": "x", "SSE_TOKEN": "x", "REDIS_HOST": "x", "MY_SSE_HISTORY_SIZE": "x"}
    assert settings(**variables) == Settings()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SSE_HISTORY", "SSE_HISTORY_TTL"),
        ("SSE_HISTROY_SIZE", "SSE_HISTORY_SIZE"),
        ("SSE_BACKENDURL", "SSE_BACKEND_URL"),
        ("SSE_REDISHOST", "SSE_REDIS_HOST"),
        ("sse_ping_interval", "SSE_PING_INTERVAL"),
        ("export SSE_BACKEND_URL", "SSE_BACKEND_URL"),
    ],
)
def test_a_misspelt_variable_logs_a_warning(caplog: pytest.LogCaptureFixture, name: str, meant: str) -> None:
    """A name that resembles a variable is not read, and one warning names the variable that may be meant."""
    assert settings(**{name: "x"}) == Settings()
    assert [one.getMessage() for one in caplog.records] == [f"The variable {name!r} is not read: is {meant} meant?"]
    assert (caplog.records[0].name, caplog.records[0].levelno) == ("sse_asgi.config", logging.WARNING)


def test_a_prefix_is_part_of_the_names(caplog: pytest.LogCaptureFixture) -> None:
    """A Config with a prefix reads, and checks the spelling of, the variables with that prefix."""
    variables = {"APP_SSE_HUB_NAME": "chat", "APP_SSE_HISTORY_SIZ": "5", "SSE_HISTORY_SIZ": "5"}
    assert Settings.from_environment(Config(environ=variables, env_prefix="APP_")) == Settings(hub_name="chat")
    assert [one.args for one in caplog.records] == [("APP_SSE_HISTORY_SIZ", "APP_SSE_HISTORY_SIZE")]


# The address of Redis


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"SSE_REDIS_HOST": "cache"}, "redis://cache:6379/0"),
        ({"SSE_REDIS_HOST": "10.0.0.7"}, "redis://10.0.0.7:6379/0"),
        ({"SSE_REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
        ({"SSE_REDIS_PORT": "6380"}, "redis://localhost:6380/0"),
        ({"SSE_REDIS_DB": "0"}, "redis://localhost:6379/0"),
        ({"SSE_REDIS_HOST": "cache", "SSE_REDIS_PORT": "1", "SSE_REDIS_DB": "2"}, "redis://cache:1/2"),
        ({"SSE_REDIS_URL": "rediss://me:secret@cache"}, "rediss://me:secret@cache"),
        ({"SSE_REDIS_HOST": "", "SSE_REDIS_PORT": "", "SSE_REDIS_DB": "", "SSE_REDIS_URL": ""}, "memory://"),
    ],
)
def test_the_address_of_redis_can_be_given_in_parts(variables: dict[str, str], url: str) -> None:
    """Host, port and database each have a default and make a URL; SSE_REDIS_URL is a URL as it is."""
    assert settings(**variables) == Settings(backend_url=url)


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("SSE_REDIS_HOST", "redis://cache", "a host's name or address"),
        ("SSE_REDIS_HOST", "me@cache", "a host's name or address"),
        ("SSE_REDIS_HOST", "cache:6380", "a host's name or address"),
        ("SSE_REDIS_PORT", "0", "a port, from 1 to 65535"),
        ("SSE_REDIS_PORT", "65536", "a port, from 1 to 65535"),
        ("SSE_REDIS_PORT", "tcp://10.0.0.7:6379", "a port, from 1 to 65535"),
        ("SSE_REDIS_DB", "-1", "the number of a database, at least 0"),
        ("SSE_REDIS_DB", "events", "the number of a database, at least 0"),
    ],
)
def test_a_wrong_part_is_named(variable: str, text: str, allowed: str) -> None:
    """The error is like that of every other variable."""
    with pytest.raises(ValueError, match="must be") as caught:
        settings(**{variable: text})
    assert str(caught.value) == f"{variable}={text!r}: must be {allowed}"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:secret@host", "SSE_REDIS_URL='http://host': no backend is installed"),
        ("redis://me:secret@host/x", "SSE_REDIS_URL='redis://host/x': the database"),
        ("redis://me:secret@host?timeout=0", "timeout in SSE_REDIS_URL='0': must be a number"),
        ("memory://?history=5", "SSE_REDIS_URL='memory://?history=5': unknown option 'history'"),
        ("redis://[::1", "SSE_REDIS_URL='redis://[::1': "),
    ],
)
def test_a_wrong_url_names_the_variable_that_gave_it(url: str, message: str) -> None:
    """The error names the variable that was set, and shows no password."""
    with pytest.raises(ValueError, match="SSE_REDIS_URL") as caught:
        create_hub(settings(SSE_REDIS_URL=url))
    assert str(caught.value).startswith(message)


def test_the_repr_of_settings_shows_the_rest() -> None:
    """The repr has the URL without secrets, and every other setting."""
    text = repr(Settings(backend_url="redis://me:pw@[::1]:7/1?timeout=2&password=x&client_name=me&", hub_name="chat"))
    assert text.startswith(
        "Settings(backend_url='redis://[::1]:7/1?timeout=2&password=...&client_name=...&', hub_name='chat'"
    )
    text = repr(Settings(backend_url="redis://me:part?of@a.password"))
    assert text.startswith("Settings(backend_url='redis://...', hub_name=")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("SSE_BACKEND_URL", "SSE_REDIS_HOST"),
        ("SSE_BACKEND_URL", "SSE_REDIS_PORT"),
        ("SSE_BACKEND_URL", "SSE_REDIS_DB"),
        ("SSE_BACKEND_URL", "SSE_REDIS_URL"),
        ("SSE_REDIS_URL", "SSE_REDIS_HOST"),
    ],
)
def test_two_addresses_are_refused(first: str, second: str) -> None:
    """Two variables that give an address are an error that names both, and shows no password."""
    values = {first: "redis://me:secret@cache", second: "1"}
    with pytest.raises(ValueError, match="both set") as caught:
        settings(**values)
    assert str(caught.value).startswith(f"{first} and {second} are both set: choose one of them")
    assert "secret" not in str(caught.value)


# Sources of variables


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty directory; return the path of a `.env` there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


def test_the_environment_is_the_default_place(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Config and without a file, the variables of the process are read."""
    monkeypatch.setenv("SSE_HUB_NAME", "from-environment")
    assert Settings.from_environment().hub_name == "from-environment"


def test_an_env_file_is_read(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` in the working directory is read by default; variables of the process override it."""
    monkeypatch.setenv("SSE_HUB_NAME", "from-environment")
    monkeypatch.delenv("SSE_BUFFER_SIZE", raising=False)
    env_file.write_text('# settings\nSSE_HUB_NAME=from-file\nSSE_BUFFER_SIZE="12"\n')
    read = Settings.from_environment()
    assert (read.hub_name, read.buffer_size) == ("from-environment", 12)


def test_a_given_config_is_the_only_place(env_file: Path) -> None:
    """With a Config, neither the environment nor `.env` is read."""
    env_file.write_text("SSE_BUFFER_SIZE=12\n")
    assert settings() == Settings()
    assert settings(SSE_BUFFER_SIZE="5").buffer_size == 5


def test_a_directory_named_env_is_ignored(env_file: Path) -> None:
    """Some virtual environments have this name."""
    env_file.mkdir()
    assert isinstance(Settings.from_environment(), Settings)


def test_an_env_file_in_another_encoding_is_named(env_file: Path) -> None:
    """A file that is not UTF-8 is a ValueError that names the file."""
    env_file.write_bytes("SSE_HUB_NAME=caf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"^\.env in the working directory must be text in UTF-8: "):
        Settings.from_environment()


def test_a_mistake_in_the_env_file_logs_a_warning(env_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The spelling of names in the file is checked too."""
    env_file.write_text("export SSE_HUB_NAME=chat\n")
    Settings.from_environment()
    assert "'export SSE_HUB_NAME' is not read: is SSE_HUB_NAME meant?" in caplog.text


def test_settings_are_frozen() -> None:
    """A setting cannot be changed."""
    with pytest.raises(AttributeError):
        Settings().history_size = 5  # type: ignore[misc]


# Hubs


def test_a_hub_is_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the environment is read, and its mistakes are errors."""
    monkeypatch.setenv("SSE_BUFFER_SIZE", "none")
    with pytest.raises(ValueError, match="SSE_BUFFER_SIZE='none'"):
        create_hub()


def test_a_hub_is_in_memory_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SSE_BACKEND_URL the backend is a MemoryBackend, and the hub is not open yet."""
    monkeypatch.delenv("SSE_BACKEND_URL", raising=False)
    hub = create_hub()
    assert isinstance(hub.backend, MemoryBackend)
    assert hub.state == "closed"


def test_an_unknown_option_is_named() -> None:
    """An option that the backend does not have is a ValueError that lists its options."""
    with pytest.raises(ValueError, match="unknown option") as caught:
        create_hub(Settings(backend_url="memory://?history=5"))
    message = "SSE_BACKEND_URL='memory://?history=5': unknown option 'history'; known: history_size, history_ttl"
    message += ", history_bytes, total_bytes"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "history_size=-1",
            "history_size in SSE_BACKEND_URL='-1': must be a whole number of events, 0 to 9223372036854775807",
        ),
        (
            "history_size=",
            "history_size in SSE_BACKEND_URL='': must be a whole number of events, 0 to 9223372036854775807",
        ),
        ("history_ttl=0", "history_ttl in SSE_BACKEND_URL='0': must be seconds above 0 and at most 10000000000"),
    ],
)
def test_a_wrong_option_is_named(query: str, message: str) -> None:
    """A wrong value in the URL's query is a ValueError with the option, the value and the allowed values."""
    with pytest.raises(ValueError, match="must be") as caught:
        create_hub(Settings(backend_url=f"memory://?{query}"))
    assert str(caught.value) == message


@pytest.mark.parametrize("url", ["carrier-pigeon://loft", "memory", "://", "memory//x"])
def test_an_unknown_scheme_lists_the_known_ones(url: str) -> None:
    """A URL without a backend is a ValueError with the URL and all known schemes."""
    with pytest.raises(ValueError, match="known: ") as caught:
        create_hub(Settings(backend_url=url))
    message = str(caught.value)
    assert message.startswith(f"SSE_BACKEND_URL={url!r}: no backend is installed for this scheme; known: ")
    assert "memory://" in message


def test_a_malformed_url_is_named() -> None:
    """A text that is not a URL is a ValueError that names the variable."""
    with pytest.raises(ValueError, match="SSE_BACKEND_URL"):
        create_hub(Settings(backend_url="memory://[::1"))


# Backends of other distributions

MODULE = """
from sse_asgi import MemoryBackend

class PigeonBackend(MemoryBackend):
    def __init__(self, settings):
        super().__init__(history_size=settings.history_size)
        self.settings = settings
"""


@pytest.fixture
def pigeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a distribution with a backend for pigeon://."""
    (tmp_path / "pigeon_backend.py").write_text(MODULE)
    info = tmp_path / "pigeon_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sse_asgi.backends]\npigeon = pigeon_backend:PigeonBackend\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("pigeon_backend", None)


@pytest.mark.usefixtures("pigeon")
def test_an_installed_backend_gets_the_settings() -> None:
    """The scheme is an entry point, which is called with the settings and returns the backend."""
    given = Settings(backend_url="pigeon://loft", hub_name="coop", history_size=5)
    backend: Any = create_hub(given).backend
    assert type(backend).__name__ == "PigeonBackend"
    assert backend.settings is given


@pytest.mark.usefixtures("pigeon")
def test_an_installed_scheme_is_listed() -> None:
    """The error about an unknown scheme lists installed schemes too."""
    with pytest.raises(ValueError, match=r"known: .*memory://, pigeon://"):
        create_hub(Settings(backend_url="dove://"))


@pytest.mark.usefixtures("pigeon")
def test_an_installed_backend_is_not_loaded_for_other_schemes() -> None:
    """A hub in memory does not import it."""
    create_hub(Settings())
    assert "pigeon_backend" not in sys.modules


# A URL in place of settings


def test_a_url_makes_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """All other settings are those of the environment."""
    monkeypatch.setenv("SSE_BACKEND_URL", "redis://elsewhere")
    monkeypatch.setenv("SSE_BUFFER_SIZE", "7")
    hub = create_hub("memory://?history_size=0")
    assert isinstance(hub.backend, MemoryBackend)
    assert (hub.keeps_history, hub._defaults.buffer_size) == (False, 7)
    assert type(create_hub("redis://localhost").backend).__name__ == "RedisBackend"


def test_a_wrong_url_is_not_named_as_a_variable() -> None:
    """The error names the argument `url`, because no variable has this URL; its password is not shown."""
    with pytest.raises(ValueError, match=r"^url='pigeon://loft': no backend is installed for this scheme; known: mem"):
        create_hub("pigeon://user:secret@loft")


@pytest.mark.parametrize("settings", [7, MemoryBackend()])
def test_other_types_than_a_url_and_settings_are_refused(settings: Any) -> None:
    """The error says what to write."""
    with pytest.raises(TypeError, match=r"create_hub\('redis://localhost'\), or Hub\(backend\)"):
        create_hub(settings)


def test_a_url_of_another_type_is_refused() -> None:
    """A TypeError names the argument, and says what to write."""
    with pytest.raises(TypeError, match=r"^SSE_BACKEND_URL must be a URL \(got int\): write 'redis://localhost'"):
        create_hub(Settings(backend_url=5))  # type: ignore[arg-type]


def test_a_config_of_another_type_is_refused() -> None:
    """A plain mapping is a TypeError that says how to make a Config of it."""
    with pytest.raises(TypeError, match=r"got dict\): write Config\(environ=\.\.\.\)"):
        Settings.from_environment({"SSE_HUB_NAME": "chat"})  # type: ignore[arg-type]


def test_redis_needs_redis_py(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py the error says how to install it."""
    monkeypatch.setitem(sys.modules, "sse_asgi.backends.redis", None)
    with pytest.raises(ValueError, match=r"^url='redis://cache' needs redis-py: pip install 'sse-asgi\[redis\]'"):
        create_hub("redis://cache")
