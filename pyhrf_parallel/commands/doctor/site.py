"""Checks of the cluster: from the directory of runs to a job."""

from __future__ import annotations

import platform
import posixpath
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pyhrf_parallel.commands.doctor.chain import Chain, Check, Finding, broken, skipped
from pyhrf_parallel.commands.setup.environment import identity_there
from pyhrf_parallel.commands.setup.identity import differences, identity
from pyhrf_parallel.commands.setup.interpreters import MINOR, probe
from pyhrf_parallel.commands.setup.queues import find_queues, slurm_version
from pyhrf_parallel.errors import ClusterError, ParallelError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.map_run import MapRun

_LITTLE = 100e6  # bytes
_LOGIN_ONLY = (
    "a command over SSH may know less than a login does. If it works there (ssh {server}, then sinfo): {setup} "
    "finds out what is needed, or say it yourself, as setup of [parallel-cluster] (for example setup = module "
    "load slurm). For jobs on the login node itself: scheduler = local_basic"
)
_REFUSED = "see mem, time, cpus, queue and native_specification of [parallel-cluster]"
_NOT_SHARED = (
    "the usual reason: compute nodes do not see remote_path or remote_python, which have to be on a file "
    "system that all nodes share"
)


def remote_path(chain: Chain) -> str | Finding:
    """Make a directory below `remote_path`, and remove it."""
    from pyhrf_parallel.runs.sftp import advice

    sftp = chain.cluster.connection.sftp
    place = existing = chain.cluster.path(chain.settings.remote_path)
    while existing not in ("/", "") and not _exists(chain, existing):
        existing = posixpath.dirname(existing)
    name = f"{existing}/.pyhrf_parallel_{secrets.token_hex(4)}"
    try:
        sftp.mkdir(name, 0o700)
        sftp.rmdir(name)
    except OSError as error:
        return broken(
            f"nothing can be made in {existing}: {error}{advice(error, name)}",
            "set remote_path of [parallel-cluster] to a directory of yours that all nodes share",
        )
    state = "can be written to" if existing == place else "will be made"
    free = _free(chain, existing)
    if free is not None and free < _LITTLE:
        return broken(
            f"only {free / 1e6:.0f} MB are free in {existing}",
            "remove something, or set remote_path",
        )
    told = "free space unknown" if free is None else f"{free / 1e9:.1f} GB free"
    return f"{place} {state}, {told}"


def _exists(chain: Chain, path: str) -> bool:
    with suppress(OSError):
        chain.cluster.connection.sftp.stat(path)
        return True
    return False


def _free(chain: Chain, path: str) -> int | None:
    """Return the free bytes of a file system there, None if `df` does not say."""
    done = chain.cluster.connection.run(["df", "-Pk", path])
    try:
        # From the percentage back: names of file systems and directories may have spaces.
        row = done.out.decode(errors="replace").splitlines()[1]
        return int(row.partition("%")[0].split()[-2]) * 1024
    except (IndexError, ValueError):
        return None


def remote_python(chain: Chain) -> str | Finding:
    """Run `remote_python`."""
    found = probe(chain.cluster, chain.settings.remote_python)
    if not found.version:
        return broken(str(found), f"to make it: {chain.setup}")
    if not found.fits:
        return broken(
            f"{found}, and here runs {MINOR}: functions travel between equal minor versions only",
            f"to make another one: {chain.setup} --remote-python "
            f"'~/pyhrf_parallel_venv_{MINOR}/bin/python'",
        )
    return str(found)


def packages(chain: Chain) -> str | Finding:
    """Compare the installed packages with those here."""
    here, there = identity(), identity_there(chain.cluster, chain.settings.remote_python)
    wrong = differences(here, there)
    if wrong:
        return broken("; ".join(wrong), f"to install what is here: {chain.setup}")
    told = ", ".join(f"{name} {there[name]}" for name in here if name not in ("python", "sources"))
    if there["sources"] != here["sources"]:
        told += f" (its sources are not those of here, which {chain.setup} would send)"
    return told


def scheduler(chain: Chain) -> str | Finding:
    """Run the scheduler's commands."""
    name, queue = chain.settings.scheduler, chain.settings.queue
    if name == "local_basic":
        return "local_basic: jobs run on the login node"
    if name != "slurm":
        return skipped(f"{name} is not known here: see job")
    try:
        version, queues = slurm_version(chain.cluster), find_queues(chain.cluster)
    except ClusterError as error:
        if error.transient:
            raise
        return broken(str(error), _LOGIN_ONLY.format(server=chain.server, setup=chain.setup))
    told = ", ".join(queues) or "none"
    if queue and queue not in queues:
        advice = "set queue of [parallel-cluster] to one of these, or leave it out"
        return broken(f"there is no queue {queue!r}, only {told}", advice)
    return f"{version}, queues: {told}"


def job(chain: Chain) -> str | Finding:
    """Run a map of two tasks, each in a job."""
    if not chain.with_job:
        return skipped("not wanted (--no-job)")
    from pyhrf_parallel.submitting import submit_map

    began = time.monotonic()
    with submit_map(platform.node, [(), ()]) as run:
        try:
            nodes = run.result(chain.patience)
        except TimeoutError:
            return _unfinished(run, chain.patience)
        except ParallelError as error:
            return broken(str(error), _REFUSED if "refuses" in str(error) else _NOT_SHARED)
        finally:
            run.clean()
    seconds = time.monotonic() - began
    return f"2 tasks ran on {', '.join(sorted(set(nodes)))}, and back, in {seconds:.1f} s"


def _unfinished(run: MapRun, patience: float) -> Finding:
    rows = run.status().jobs
    jobs = {f"{row.status}{f' ({row.reason})' if row.reason else ''}" for row in rows}
    return broken(
        f"not over after {patience:g} s; jobs: {', '.join(sorted(jobs)) or 'none yet'}",
        "is the queue full (see squeue there)? To wait longer: --patience SECONDS; to leave this out: "
        "--no-job",
    )


def pyhrf27(chain: Chain) -> str | Finding:
    """Look for pyhrf on Python 2.7, and for its command that jobs run."""
    assert chain.python27 is not None  # noqa: S101
    python = chain.cluster.path(chain.python27)
    advice = "how to install it: see the page on pyhrf itself of the documentation"
    # Not imported: it would write its configuration to the home there.
    code = (
        "import sys, pkg_resources; "
        "print(sys.version.split()[0] + ' ' + pkg_resources.get_distribution('pyhrf').version)"
    )
    done = chain.cluster.connection.run([python, "-c", code])
    if done.status != 0:
        told = (done.err.strip().splitlines() or [f"exit status {done.status}"])[-1]
        return broken(f"{python} has no pyhrf: {told}", advice)
    version, pyhrf = done.out.decode(errors="replace").split()[-2:]
    command = posixpath.join(posixpath.dirname(python), "pyhrf_jde_estim")
    if not version.startswith("2.7") or not _exists(chain, command):
        return broken(f"{python} is Python {version}; {command} has to be there", advice)
    return f"pyhrf {pyhrf}, Python {version}, {command}"


SITE = (
    Check("remote_path", ("files",), remote_path),
    Check("remote_python", ("files",), remote_python),
    Check("packages", ("remote_python",), packages),
    Check("scheduler", ("files",), scheduler),
    Check("job", ("remote_path", "packages", "scheduler"), job),
)
#: Done on request.
PYHRF = Check("pyhrf", ("files",), pyhrf27)
