"""Address: the forms that REDIS_URL may take, and what each of them says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

Node = tuple[str, int]  # host and port

_SERVERS = ("redis", "rediss", "unix")
_GROUPS = {"cluster": 6379, "sentinel": 26379}  # and the port that is meant where none is said
_GROUP = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>cluster|sentinel)://(?:(?P<login>[^@/?#]*)@)?(?P<hosts>[^@/?#]+)"
    r"(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(?::(?P<port>[0-9]{1,5}))?")
_ANY, _SECONDS, _SWITCH = r".+", r"[0-9]+(\.[0-9]+)?", r"true|false|yes|no"
_EVERYWHERE = {
    "protocol": "[23]",
    "client_name": "[!-~]+",
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
}
_SERVER = {"db": "[0-9]{1,5}", "username": _ANY, "password": _ANY}
_SENTINEL = {"sentinel_username": _ANY, "sentinel_password": _ANY}
_TLS = {
    "ssl_ca_certs": _ANY,
    "ssl_ca_path": _ANY,
    "ssl_certfile": _ANY,
    "ssl_keyfile": _ANY,
    "ssl_password": _ANY,
    "ssl_check_hostname": _SWITCH,
    "ssl_cert_reqs": "none|optional|required",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the ledger is. One of these, with `rediss` for TLS:

    - `redis://[user:password@]host[:port][/db]`, `unix://[user:password@]/path[?db=0]`: one server;
    - `redis+cluster://[user:password@]host[:port][,host[:port]…]`: some nodes of a Redis Cluster, through
      which the others are found. Their names are those that the nodes announce;
    - `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/db]`: the sentinels, and the name
      of the master they watch. User and password are the master's.

    What is not a letter or digit in a user, password or name is written %XX. Options after `?`: `protocol`,
    `client_name`, `socket_timeout` and `socket_connect_timeout` (s); with one server also `db`, `username`,
    `password`; with sentinels `sentinel_username` and `sentinel_password`, their own; with TLS
    `ssl_ca_certs`, `ssl_ca_path`, `ssl_certfile`, `ssl_keyfile`, `ssl_password`, `ssl_check_hostname`,
    `ssl_cert_reqs`.
    """

    kind: str  # "server", "cluster" or "sentinel"
    url: str = field(repr=False)
    nodes: tuple[Node, ...] = ()  # of the cluster, or the sentinels
    master: str = ""  # its name among sentinels
    _scheme: str = ""
    _login: str = field(default="", repr=False)  # as it stands in the URL
    _db: str = ""
    _options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def server(self, node: Node) -> str:
        """The URL of one server of the group, a node or the master, with what it wants to be told."""
        options = {name: value for name, value in self._options.items() if name not in _SENTINEL}
        return self._url(self._login, node, self._db, options)

    def sentinel(self, node: Node) -> str:
        """The URL of one sentinel."""
        options = dict(self._options)
        user, password = (quote(options.pop(name, ""), safe="") for name in _SENTINEL)
        return self._url(f"{user}:{password}" if user or password else "", node, "", options)

    def _url(self, login: str, node: Node, db: str, options: Mapping[str, str]) -> str:
        host = f"[{node[0]}]" if ":" in node[0] else node[0]
        url = f"{self._scheme}://{login}{'@' if login else ''}{host}:{node[1]}/{db}"
        return f"{url}?{urlencode(options)}" if options else url


def read(url: str) -> Address:
    """Read an address. Raises ValueError, which says what was expected and shows nothing of the address."""
    if match := _GROUP.fullmatch(url):
        return _group(url, **match.groupdict(default=""))
    scheme, follows, rest = url.partition("://")
    if follows and scheme in _SERVERS:
        return _one(url, scheme)
    kinds = [f"{secure}+{kind}" for kind in _GROUPS for secure in ("redis", "rediss")]
    if scheme in kinds and rest:
        raise ValueError(f"{scheme}://host:port, or several with a comma between them, and no # or second @")
    raise ValueError(f"an address beginning {' or '.join(f'{name}://' for name in (*_SERVERS, *kinds))}")


def _one(url: str, scheme: str) -> Address:
    """One server: redis-py reads its address, so only what it would not see, or not say, is looked at."""
    form = "unix:///path" if scheme == "unix" else f"{scheme}://host:port/db"
    try:
        parts = urlsplit(url)
        whole = parts.port != 0 and bool(parts.netloc or parts.path) and not parts.fragment
    except ValueError:  # brackets that do not match, or a port that is none
        whole = False
    if not whole or (scheme == "unix" and len(parts.path) < 2):
        raise ValueError(f"{form}; what is special in a password is written %XX")
    if scheme != "unix" and not re.fullmatch(r"(/[0-9]{0,5})?", parts.path):
        raise ValueError(f"{form}, where db is a number")
    _options(parts.query, _EVERYWHERE | _SERVER | (_TLS if scheme == "rediss" else {}))
    return Address("server", url)


def _group(url: str, scheme: str, kind: str, login: str, hosts: str, path: str, query: str) -> Address:
    """A cluster, or the sentinels of a master."""
    nodes = tuple(_node(host, f"{scheme}+{kind}", _GROUPS[kind]) for host in hosts.split(","))
    allowed = _EVERYWHERE | (_TLS if scheme == "rediss" else {}) | (_SENTINEL if kind == "sentinel" else {})
    options = _options(query, allowed)
    master, db = _master(path, scheme) if kind == "sentinel" else ("", "")
    if kind == "cluster" and path not in ("", "0"):
        raise ValueError("no database: a cluster has only the first")
    return Address(kind, url, nodes, master, scheme, login, db, options)


def _node(text: str, scheme: str, port: int) -> Node:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match["port"] or port) < 65536:
        raise ValueError(f"{scheme}://host:port, or several with a comma between them")
    return match["host"].strip("[]"), int(match["port"] or port)


def _master(path: str, scheme: str) -> tuple[str, str]:
    """The master's name and the database."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:/([0-9]{1,5})?)?", path)  # the names that sentinels allow
    if match is None:
        raise ValueError(f"the name of the master after the sentinels: {scheme}+sentinel://host:port/name/db")
    return match[1], match[2] or ""


def _options(query: str, allowed: Mapping[str, str]) -> dict[str, str]:
    """What stands after `?`."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    if set(options) - set(allowed) or (query and not options):
        raise ValueError(f"after `?` only {', '.join(allowed)}")
    for name, value in options.items():
        if not re.fullmatch(allowed[name], value):
            raise ValueError(f"{name}= {_wanted(allowed[name])} after `?`")
    return options


def _wanted(pattern: str) -> str:
    """What an option holds, in words."""
    words = {_ANY: "something", _SECONDS: "seconds", "[!-~]+": "letters and digits", "[23]": "2 or 3"}
    return words.get(pattern) or ("a number" if pattern[0] == "[" else pattern.replace("|", " or "))
