"""A Slurm of one or more nodes on this machine: a controller, and a slurmd for each node."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cluster.daemons import PATH, free_port, start, stop, wait_for, write


@dataclass
class Slurm:
    """All its state is in one directory.

    Parameters
    ----------
    place : Path
        The directory.
    munge : Path
        munged's socket.
    nodes, cpus : int
        How many nodes, and how many CPUs each has.
    settings : str
        More lines for its configuration.
    """

    place: Path
    munge: Path
    nodes: int = 1
    cpus: int = 2
    settings: str = ""

    @property
    def conf(self) -> Path:
        return self.place / "slurm.conf"

    def up(self) -> None:
        self.place.mkdir(mode=0o755)
        (self.place / "state").mkdir(mode=0o755)
        shutil.chown(self.place / "state", "slurm", "slurm")
        host = socket.gethostname().partition(".")[0]
        megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 >> 20
        ports = [free_port() for _ in range(self.nodes)]
        nodes = [
            f"NodeName=node{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={self.cpus} RealMemory={megabytes // self.nodes}"
            for number, port in enumerate(ports, 1)
        ]
        write(
            self.conf,
            f"""
            ClusterName=onenode
            SlurmctldHost={host}(127.0.0.1)
            SlurmUser=slurm
            AuthType=auth/munge
            CredType=cred/munge
            AuthInfo=socket={self.munge}
            SlurmctldPort={free_port()}
            SlurmctldPidFile={self.place}/state/slurmctld.pid
            SlurmdPidFile={self.place}/%n.pid
            SlurmctldLogFile={self.place}/state/slurmctld.log
            SlurmdLogFile={self.place}/%n.log
            StateSaveLocation={self.place}/state
            SlurmdSpoolDir={self.place}/%n
            SlurmdTimeout=15
            TreeWidth=65533
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
            DefMemPerNode={2000 // self.nodes}
            """
            + "\n".join([self.settings, *nodes])
            + "\nPartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
        )
        write(self.place / "cgroup.conf", "CgroupAutomount=no")
        self.start_controller()
        for number in range(1, self.nodes + 1):
            self.start_node(number)
        wait_for(self.is_idle, 30, "idle nodes")

    def is_idle(self) -> bool:
        return self.command("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * self.nodes

    def start_controller(self) -> None:
        start("slurmctld", "-f", self.conf)
        wait_for(lambda: "UP" in self.command("scontrol", "ping"), 20, "slurmctld")

    def stop_controller(self) -> None:
        stop(self.place / "state" / "slurmctld.pid", "slurmctld")

    def start_node(self, number: int) -> None:
        (self.place / f"node{number}").mkdir(mode=0o755, exist_ok=True)
        start("slurmd", "-f", self.conf, "-N", f"node{number}", "-c")

    def kill_node(self, number: int) -> None:
        """Kill the daemon of a node, and all that it has started, at once."""
        psutil.Process(int((self.place / f"node{number}.pid").read_text())).kill()
        self._kill_steps(str(self.place / f"node{number}.log"))

    def _kill_steps(self, log: str = "") -> None:
        """Kill the daemons of steps, with their jobs: all, or those of a node, which write to its log."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() != "slurmstepd" or process.cwd() != str(self.place):
                    continue
                if log in str(process.open_files()):
                    process.suspend()  # a dead node does not report the end of its jobs
                    for one in [*process.children(recursive=True), process]:
                        one.kill()

    def command(self, *argv: str) -> str:
        """Return what a command prints, of Slurm or any other."""
        environment = os.environ | {"SLURM_CONF": str(self.conf), "PATH": PATH}
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
        return done.stdout + done.stderr

    def down(self) -> None:
        for number in range(1, self.nodes + 1):
            stop(self.place / f"node{number}.pid", "slurmd")
        self.stop_controller()
        self._kill_steps()  # they wait for ever for a controller
