"""A real one-node cluster on loopback: sshd, munge and Slurm, all state in one directory.

Needs root and Debian's packages openssh-server, slurm-wlm and munge. Nothing outside the directory is
touched but the account that jobs run in, which is made and removed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("sshd", "munged", "slurmctld", "slurmd", "sbatch", "useradd")
SYSTEM_PYTHON = Path("/usr/bin/python3")
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def what_is_missing() -> str:
    """Say what this machine lacks for a cluster of its own; empty for nothing."""
    if os.getuid() != 0:
        return "not root"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]
    if absent:
        return f"no {', '.join(absent)} (apt-get install openssh-server slurm-wlm munge)"
    version = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        return f"{SYSTEM_PYTHON} is {version or 'absent'}, and not this Python's version"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {seconds} s")
        time.sleep(0.02)


@dataclass
class OneNode:
    """The running cluster."""

    base: Path
    user: str = field(default_factory=lambda: f"pyhrf{os.getpid()}")
    slots: int = 2
    ssh_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.home = self.base / "home" / 'it\'s a "home" é'
        self.environment = os.environ | {
            "SLURM_CONF": str(self.base / "slurm.conf"),
            "PATH": _PATH,
        }
        self.python = self.base / "venv" / "bin" / "python"

    # ---- set-up -------------------------------------------------------------------------------

    def up(self) -> None:
        self.base.chmod(0o755)
        self.make_account()
        self.make_environment()
        self.start_sshd()
        self.start_munge()
        self.start_slurm()

    def make_account(self) -> None:
        self.home.parent.mkdir(mode=0o755)
        # useradd refuses such a home, as it may: the account gets it afterwards.
        run(
            "useradd",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "-s",
            "/bin/bash",
            self.user,
        )
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
        # One thread: the last bits of a result depend on their number.
        settings = f"export SLURM_CONF={self.base}/slurm.conf OPENBLAS_NUM_THREADS=1\n"
        for name in (".profile", ".bashrc"):
            (self.home / name).write_text(settings)
        self.own(self.home)

    def own(self, path: Path) -> None:
        entry = pwd.getpwnam(self.user)
        for one in [path, *path.rglob("*")]:
            os.chown(one, entry.pw_uid, entry.pw_gid)

    def make_environment(self) -> None:
        """Install the package on the cluster's side: for another interpreter, reachable by its users."""
        run(SYSTEM_PYTHON, "-m", "venv", "--without-pip", self.base / "venv")
        run(
            sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet",
            f"{ROOT}[cluster,fmri]",
        )  # fmt: skip

        # What the tests map has to be there, as a user's package has.
        place = self.base / "lib" / "tests" / "contract"
        place.mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "contract" / "cases.py", place)
        (site_packages,) = (self.base / "venv" / "lib").glob("python*/site-packages")
        (site_packages / "tests.pth").write_text(f"{self.base / 'lib'}\n")

    def start_sshd(self) -> None:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.base / "host_key")
        self.write(
            "sshd_config",
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
        self.start("sshd", "-f", self.base / "sshd_config", "-E", self.base / "sshd.log")
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
        self.start(
            "setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged",
            f"--key-file={place}/key", f"--socket={place}/socket", f"--pid-file={place}/pid",
            f"--log-file={place}/log", f"--seed-file={place}/seed",
        )  # fmt: skip
        wait_for((place / "socket").exists, 10, "munged")

    def start_slurm(self) -> None:
        for name in ("state", "spool"):
            (self.base / name).mkdir(mode=0o755)
        shutil.chown(self.base / "state", "slurm", "slurm")
        host = socket.gethostname().partition(".")[0]
        megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 >> 20
        self.write(
            "slurm.conf",
            f"""
            ClusterName=onenode
            SlurmctldHost={host}(127.0.0.1)
            SlurmUser=slurm
            AuthType=auth/munge
            CredType=cred/munge
            AuthInfo=socket={self.base}/munge/socket
            SlurmctldPort={free_port()}
            SlurmdPort={free_port()}
            SlurmctldPidFile={self.base}/state/slurmctld.pid
            SlurmdPidFile={self.base}/slurmd.pid
            SlurmctldLogFile={self.base}/state/slurmctld.log
            SlurmdLogFile={self.base}/slurmd.log
            StateSaveLocation={self.base}/state
            SlurmdSpoolDir={self.base}/spool
            ProctrackType=proctrack/linuxproc
            TaskPlugin=task/none
            MpiDefault=none
            SwitchType=switch/none
            JobAcctGatherType=jobacct_gather/linux
            JobAcctGatherFrequency=task=1
            JobAcctGatherParams=OverMemoryKill
            AccountingStorageType=accounting_storage/none
            ReturnToService=2
            InactiveLimit=0
            KillWait=2
            MinJobAge=300
            OverTimeLimit=0
            SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=1000,bf_interval=1
            SlurmdParameters=config_overrides
            SelectType=select/cons_tres
            SelectTypeParameters=CR_CPU_Memory
            DefMemPerNode=2000
            NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={self.slots} RealMemory={megabytes}
            PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE State=UP
            """,
        )
        self.write("cgroup.conf", "CgroupAutomount=no")
        self.start_slurmctld()
        self.start("slurmd", "-f", self.base / "slurm.conf", "-N", "node1", "-c")
        wait_for(lambda: "idle" in self.command("sinfo", "-h", "-o", "%T"), 30, "an idle node")

    def start_slurmctld(self) -> None:
        self.start("slurmctld", "-f", self.base / "slurm.conf")
        wait_for(lambda: "UP" in self.command("scontrol", "ping"), 20, "slurmctld")

    def write(self, name: str, text: str) -> None:
        lines = [line.strip() for line in text.strip().splitlines()]
        (self.base / name).write_text("\n".join(lines) + "\n")

    def start(self, program: str, *arguments: object) -> None:
        path = shutil.which(program, path=_PATH)
        assert path
        subprocess.run([path, *map(str, arguments)], check=True, env=self.environment, cwd="/")

    def command(self, *argv: str) -> str:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=self.environment, check=False
        )
        return done.stdout + done.stderr

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
        done = self.command("ps", "-o", "pid=,stat=,comm=", "-u", self.user)
        rows = [line.split(None, 2) for line in done.splitlines()]
        # The dead, too, are there until the machine's first process asks what became of them.
        alive = [(pid, name) for pid, state, name in rows if not state.startswith("Z")]
        return [int(pid) for pid, name in alive if not name.startswith("sshd")]

    def jobs(self) -> list[str]:
        """Return the jobs that Slurm has not seen the end of."""
        return self.command("squeue", "--noheader", "--user", self.user, "-o", "%i").split()

    def files(self) -> list[str]:
        """Return what the account has, at home and in /tmp, beside what it started with."""
        given = {".profile", ".bashrc"}
        uid = pwd.getpwnam(self.user).pw_uid
        elsewhere = [str(p) for p in Path("/tmp").iterdir() if p.lstat().st_uid == uid]
        return elsewhere + [str(p) for p in self.home.rglob("*") if p.name not in given]

    # ---- tear-down ----------------------------------------------------------------------------

    def down(self) -> None:
        self.command("scancel", "-u", self.user)
        for pid_file, name in (
            ("slurmd.pid", "slurmd"),
            ("state/slurmctld.pid", "slurmctld"),
            ("munge/pid", "munged"),
            ("sshd.pid", "sshd"),
        ):
            self.stop(self.base / pid_file, name)
        everything = "ps", "-o", "pid=", "-u", self.user  # with SSH sessions that hang
        for pid in self.command(*everything).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not self.command(*everything).strip(), 10, "no process")  # userdel asks
        run("userdel", self.user)
        shutil.rmtree(self.base, ignore_errors=True)

    def stop(self, pid_file: Path, name: str) -> None:
        """Stop a daemon of ours, and no other process that has its number by now."""
        if not pid_file.exists():
            return
        try:
            daemon = psutil.Process(int(pid_file.read_text()))
            if daemon.name() != name:
                return
            daemon.terminate()
            dead = psutil.STATUS_ZOMBIE
            wait_for(lambda: not daemon.is_running() or daemon.status() == dead, 10, name)
        except psutil.NoSuchProcess:
            return
        except TimeoutError:
            daemon.kill()


def run(*argv: object) -> None:
    words = [str(word) for word in argv]
    program = shutil.which(words[0], path=_PATH)
    assert program, words[0]
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


@contextmanager
def one_node(base: Path) -> Iterator[OneNode]:
    cluster = OneNode(base)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
