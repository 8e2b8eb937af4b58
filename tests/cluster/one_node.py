"""A real cluster on loopback: sshd, munge and Slurm, all state in one directory.

Needs root and Debian's packages openssh-server, slurm-wlm and munge, and tcsh for its users. Nothing outside
the directory is touched but the account that jobs run in, which is made and removed. What is installed there
is what ``pyhrf-parallel setup-cluster`` installs.
"""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.daemons import PATH, accounts, free_port, run, start, stop, wait_for, write
from tests.cluster.slurm import Slurm

__all__ = ["SYSTEM_PYTHON", "OneNode", "one_node", "run", "wait_for", "what_is_missing"]

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("sshd", "munged", "slurmctld", "slurmd", "sbatch", "useradd", "tcsh")
SYSTEM_PYTHON = Path("/usr/bin/python3")
#: What users have to have there themselves, for the functions of the tests; as it is here.
PACKAGES = ("numpy",)
IMAGING = ("matplotlib", "nibabel", "nilearn", "pandas")


def what_is_missing() -> str:
    """Say what this machine lacks for a cluster of its own; empty for nothing."""
    if os.getuid() != 0:
        return "not root"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if absent:
        return f"no {', '.join(absent)} (apt-get install openssh-server slurm-wlm munge tcsh)"
    version = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        return f"{SYSTEM_PYTHON} is {version or 'absent'}, and not this Python's version"
    return ""


@dataclass
class OneNode:
    """The running cluster."""

    base: Path
    user: str = field(default_factory=lambda: f"pyhrf{os.getpid()}")
    ssh_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.home = self.base / "home" / 'it\'s a "home" é'
        self.slurm = Slurm(self.base / "slurm", self.base / "munge" / "socket")
        self.python = self.base / "software" / "environment" / "bin" / "python"
        self._installed: set[str] = set()
        self._given: set[Path] = set()

    # ---- set-up -------------------------------------------------------------------------------

    def up(self) -> None:
        self.base.chmod(0o755)
        self.make_account()
        self.start_sshd()
        self.start_munge()
        self.slurm.up()
        self.install(*PACKAGES, cases=True)

    def make_account(self) -> None:
        self.home.parent.mkdir(mode=0o755)
        with accounts():
            # useradd refuses such a home, as it may: the account gets it afterwards.
            words = "--no-create-home", "--home-dir", "/nonexistent", "-s", "/bin/bash"
            run("useradd", *words, self.user)
            run("usermod", "-p", "*", self.user)
            self.home.mkdir(mode=0o700)
            passwd = Path("/etc/passwd")
            lines = passwd.read_text().splitlines(keepends=True)
            with passwd.open("r+") as file:
                file.writelines(
                    line.replace("/nonexistent", str(self.home))
                    if line.startswith(f"{self.user}:")
                    else line
                    for line in lines
                )
                file.truncate()
        self.write_startup_files(self.slurm)
        # Its pip has what the machine of the tests has fetched: as good as an index, and faster.
        (self.base / "wheels").mkdir(mode=0o755)
        pip = self.home / ".config" / "pip"
        pip.mkdir(parents=True)
        links = f"[global]\nno-index = true\nfind-links = {self.base}/wheels\n"
        (pip / "pip.conf").write_text(f"{links}[install]\nno-compile = true\n")
        self.python.parents[2].mkdir()
        self.own(self.home)
        self.own(self.python.parents[2])
        self._given = set(self.home.rglob("*"))

    def write_startup_files(self, slurm: Slurm, *, at_login_only: bool = False) -> None:
        """Let the account's shells know a Slurm, all of them or those of logins."""
        # One thread: the last bits of a result depend on their number.
        values = {"SLURM_CONF": slurm.conf, "OPENBLAS_NUM_THREADS": 1}
        export = "".join(f"export {name}={value}\n" for name, value in values.items())
        setenv = "".join(f"setenv {name} {value}\n" for name, value in values.items())
        for at_login, always, text in (
            (".profile", ".bashrc", export),
            (".login", ".cshrc", setenv),
        ):
            (self.home / at_login).write_text(text)
            (self.home / always).write_text("" if at_login_only else text)

    @contextmanager
    def world(
        self,
        *,
        login_shell: str = "/bin/bash",
        slurm: Slurm | None = None,
        at_login_only: bool = False,
    ) -> Iterator[None]:
        """Let the account have another login shell, another Slurm, or know it after a login only."""
        own = self.slurm
        self.slurm = slurm or own
        try:
            self.change_shell(login_shell)
            self.write_startup_files(self.slurm, at_login_only=at_login_only)
            yield
        finally:
            self.slurm = own
            self.change_shell("/bin/bash")
            self.write_startup_files(own)

    def change_shell(self, shell: str) -> None:
        with accounts():
            run("usermod", "-s", shell, self.user)

    def own(self, path: Path) -> None:
        entry = pwd.getpwnam(self.user)
        for one in [path, *path.rglob("*")]:
            os.chown(one, entry.pw_uid, entry.pw_gid)

    def install(self, *packages: str, cases: bool = False) -> None:
        """Have ``setup-cluster`` make the environment, with packages of the versions that are here."""
        if self._installed.issuperset(packages):
            return
        self._installed.update(packages)
        wanted = [f"{name}=={importlib.metadata.version(name)}" for name in packages]
        wheels = self.base / "wheels"
        run(sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels, *wanted)
        if cases:
            wanted.append(_pack_cases(wheels))
        with tempfile.TemporaryDirectory() as home:
            self.make_client(Path(home))
            run(
                Path(sys.executable).with_name("pyhrf-parallel"), "setup-cluster", "onenode", "--yes",
                "--remote-python", self.python, "--base-python", SYSTEM_PYTHON,
                *(f"--with={package}" for package in wanted),
                env={"HOME": home, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            )  # fmt: skip

    def start_sshd(self) -> None:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.base / "host_key")
        write(
            self.base / "sshd_config",
            f"""
            ListenAddress 127.0.0.1:{self.ssh_port}
            HostKey {self.base}/host_key
            PidFile {self.base}/sshd.pid
            AuthorizedKeysFile {self.base}/authorized_keys
            StrictModes no
            AllowUsers {self.user}
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            UsePAM no
            UseDNS no
            MaxStartups 100:30:200
            Subsystem sftp internal-sftp
            """,
        )
        start("sshd", "-f", self.base / "sshd_config", "-E", self.base / "sshd.log")
        wait_for(self.listens, 10, "sshd")

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ssh_port)) == 0

    def start_munge(self) -> None:
        place = self.base / "munge"
        place.mkdir(mode=0o755)
        (place / "key").write_bytes(os.urandom(128))
        (place / "key").chmod(0o400)
        entry = pwd.getpwnam("munge")
        for path in (place, place / "key"):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        start(
            "setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged",
            f"--key-file={place}/key", f"--socket={place}/socket", f"--pid-file={place}/pid",
            f"--log-file={place}/log", f"--seed-file={place}/seed",
        )  # fmt: skip
        wait_for((place / "socket").exists, 10, "munged")

    def command(self, *argv: str) -> str:
        return self.slurm.command(*argv)

    # ---- use ----------------------------------------------------------------------------------

    def make_client(self, home: Path) -> None:
        """Make a HOME from which the cluster can be reached as ``onenode``."""
        ssh = home / ".ssh"
        ssh.mkdir(mode=0o700, parents=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh / "id_ed25519")
        keys = self.base / "authorized_keys"
        with keys.open("a") as file:
            file.write((ssh / "id_ed25519.pub").read_text())
        keys.chmod(0o644)
        key = " ".join((self.base / "host_key.pub").read_text().split()[:2])
        (ssh / "known_hosts").write_text(f"[127.0.0.1]:{self.ssh_port} {key}\n")
        (ssh / "config").write_text(
            f"Host onenode\n  HostName 127.0.0.1\n  Port {self.ssh_port}\n  User {self.user}\n"
        )

    def processes(self) -> list[int]:
        """Return the processes of the account but for those of its SSH sessions."""
        done = self.command("ps", "-ww", "-o", "pid=,stat=,args=", "-u", self.user)
        rows = [line.split(None, 2) for line in done.splitlines()]
        # The dead, too, are there until the machine's first process asks what became of them.
        alive = [(pid, words) for pid, state, words in rows if not state.startswith("Z")]
        return [
            int(pid)
            for pid, words in alive
            if not words.startswith("sshd") and not words.endswith("engine.agent serve")
        ]

    def jobs(self) -> list[str]:
        """Return the jobs that Slurm has not seen the end of."""
        return self.command("squeue", "--noheader", "--user", self.user, "-o", "%i").split()

    def files(self) -> list[str]:
        """Return what the account has, at home and in /tmp, beside what it started with."""
        uid = pwd.getpwnam(self.user).pw_uid
        elsewhere = []
        for path in Path("/tmp").iterdir():
            with suppress(FileNotFoundError):  # somebody else's, and gone already
                if path.lstat().st_uid == uid:
                    elsewhere.append(str(path))
        return elsewhere + [str(p) for p in self.home.rglob("*") if p not in self._given]

    # ---- tear-down ----------------------------------------------------------------------------

    def tidy(self) -> None:
        """End and remove what a failed test has left: the tests after it are not to fail for that."""
        self._end_all()
        for path in sorted(map(Path, self.files()), reverse=True):  # what is in a directory first
            with suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def _end_all(self) -> None:
        """End all jobs and processes of the account, with SSH sessions that hang."""
        self.command("scancel", "-u", self.user)
        everything = "ps", "-o", "pid=", "-u", self.user
        for pid in self.command(*everything).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not self.command(*everything).strip(), 10, "no process")

    def down(self) -> None:
        self._end_all()  # userdel asks for that
        self.slurm.down()
        stop(self.base / "munge" / "pid", "munged")
        stop(self.base / "sshd.pid", "sshd")
        self._end_all()
        with accounts():
            run("userdel", self.user)
        shutil.rmtree(self.base, ignore_errors=True)


def _pack_cases(wheels: Path) -> str:
    """Make a package of the functions that the tests map, as users have of theirs; return its name."""
    name, stem = "pyhrf-parallel-cases", "pyhrf_parallel_cases-1"
    texts = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheels / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.write(ROOT / "tests" / "contract" / "cases.py", "tests/contract/cases.py")
        for file, text in texts.items():
            wheel.writestr(f"{stem}.dist-info/{file}", text)
    return name


@contextmanager
def one_node(base: Path) -> Iterator[OneNode]:
    cluster = OneNode(base)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
