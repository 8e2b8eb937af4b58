"""What a server name stands for, as ``~/.ssh/config`` has it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.runs.ssh import Address, find_address

CONFIG = """
Host gate g-*
    HostName gate.org
    User ann
    Port 2200
    IdentityFile ~/.ssh/one
    IdentityFile "/a place/two"
    UserKnownHostsFile ~/.ssh/known /k2
Host inner
    HostName %h.lan
    ProxyJump ann@gate:22,other
Host straight
    ProxyJump none
HOST = equals
    HOSTNAME=equals.org
Host * !gate
    User everybody
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the configuration."""
    ssh = tmp_path / "home [1] é" / ".ssh"
    ssh.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(ssh.parent))
    monkeypatch.setenv("LOGNAME", "me")
    (ssh / "config").write_text(CONFIG)
    return ssh


def bare(name: str, user: str, ssh: Path) -> Address:
    known = str(ssh / "known_hosts"), "/etc/ssh/ssh_known_hosts"
    return Address(name, name, 22, user, known_hosts=known)


def test_all_that_a_host_says(ssh: Path) -> None:
    keys = str(ssh / "one"), "/a place/two"
    known = str(ssh / "known"), "/k2", "/etc/ssh/ssh_known_hosts"
    address = Address("gate", "gate.org", 2200, "ann", keys, known)
    assert find_address("gate") == address
    assert str(address) == "ann@gate.org:2200"
    assert find_address("g-7") == replace(address, alias="g-7")
    given = find_address("gate", user="bob", port=22, identity="~/k")
    assert given == replace(address, user="bob", port=22, identity_files=(str(ssh.parent / "k"),))
    assert str(given) == "bob@gate.org"


@pytest.mark.parametrize(
    ("name", "host", "jump"),
    [
        ("inner", "inner.lan", "ann@gate:22,other"),
        ("straight", "straight", ""),
        ("equals", "equals.org", ""),
        ("10.0.0.7", "10.0.0.7", ""),
        ("::1", "::1", ""),
        ("é", "é", ""),
        ("*", "*", ""),
    ],
)
def test_hosts(name: str, host: str, jump: str, ssh: Path) -> None:
    expected = replace(bare(name, "everybody", ssh), host=host, jump=jump)
    assert find_address(name) == expected


def test_no_configuration(ssh: Path) -> None:
    (ssh / "config").unlink()
    assert find_address("gate") == bare("gate", "me", ssh)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Host a\nPort many\n", "the port of a is not a number"),
        (b"nonsense\n", "cannot be used"),
        (b"Match all host a\n", "cannot be used"),
        (b"Host \xff\n", "cannot be used"),
        (b"Include config\n", "included too deep"),
        (b"Include 'config\n", "cannot be used"),
        (
            b"CanonicalizeHostname yes\nCanonicalDomains b.invalid\nCanonicalizeFallbackLocal no\n",
            "cannot be used",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used(content: bytes, told: str, ssh: Path) -> None:
    (ssh / "config").write_bytes(content)
    with pytest.raises(ClusterError, match=f"{re.escape(str(ssh))}.*{told}"):
        find_address("a")


def test_files_that_are_included(ssh: Path) -> None:
    """Each ends where it is included: what follows belongs to the block that was open before."""
    (ssh / "d").mkdir()
    (ssh / "d" / "1").write_text("Host one\n  HostName one.org\n  INCLUDE=d/deeper\n  Port 7\n")
    (ssh / "d" / "2 é").write_text("Host two\n  HostName two.org")
    (ssh / "d" / "deeper").write_text("Host x\n  User xavier\nHost one\n  User ann\n")
    absolute = ssh.parent.parent / "three"
    absolute.write_text("HostName three.org\n")
    (ssh / "config").write_text(
        f'# Include d/deeper\nInclude d/[12]* none "~/.ssh/d/2 é"\nPort 9\n'
        f"Host three\n  include {absolute}\n  User bob\n"
    )
    found = [str(find_address(name)) for name in ("one", "two", "three", "four")]
    assert found == ["ann@one.org:7", "me@two.org:9", "bob@three.org:9", "me@four:9"]
