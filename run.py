#!/usr/bin/env python3
"""Set up and run Theatrum, or set it up and test it, with nothing but Python.

    python3 run.py          set up, build the demo, run the hub
    python3 run.py test     set up, run the tests (further arguments go to pytest)

Only the standard library is used here: what is to be installed is not there yet.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
PROXY_FILES = ROOT / "hub" / "node_proxy"
OLDEST = (3, 11)
NEWEST = (3, 13)

START_LIMIT_S = 120.0
# Of the 5 s within which all must have stopped; the rest is for what is left over: it
# ends together, while the hub stops one service after the other.
HUB_STOP_LIMIT_S = 2.4
# What the proxy answers while a service is not there yet.
NOT_YET = {404, 500, 502, 503, 504}


def main() -> int:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        stop(
            f"This is Python {sys.version.split()[0]}; Theatrum runs on 3.11 to 3.13. "
            "Install one of them and start run.py with it."
        )
    if os.name != "posix":
        stop("Theatrum runs on Linux and macOS; on Windows, use WSL.")
    if sys.argv[1:2] == ["test"]:
        set_up()
        return subprocess.call([PYTHON, "-m", "pytest", *sys.argv[2:]], cwd=ROOT)
    chosen = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        set_up()
        return 0 if chosen.set_up else run(chosen)
    except Stopped:
        return 130


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Set up and run Theatrum (`run.py test`: set up and test).",
    )
    parser.add_argument("--home", type=Path, help="folder for all state (default: var)")
    parser.add_argument("--port", type=int, help="port of the hub (default: 8000)")
    parser.add_argument(
        "--no-demo", action="store_true", help="without the demo slide and course"
    )
    parser.add_argument(
        "--set-up", action="store_true", help="only install what is needed, and end"
    )
    return parser.parse_args()


def stop(message: str) -> NoReturn:
    """End with a sentence that says what to do."""
    print(message, file=sys.stderr)
    raise SystemExit(1)


# --- set up -------------------------------------------------------------------------


def set_up() -> None:
    """Make the environment, where it is not yet the one that the lock describes."""
    stamp = VENV / "theatrum-stamp"
    wanted = fingerprint()
    if stamp.is_file() and stamp.read_text() == wanted and PYTHON.exists():
        return
    began = time.monotonic()
    if not has_pip():
        # Not made yet, cut off while it was made, or its Python is gone.
        shutil.rmtree(VENV, ignore_errors=True)
        make_environment()
    install()
    install_proxy()
    stamp.write_text(wanted)
    print(f"Set up in {time.monotonic() - began:.0f} s.", flush=True)


def has_pip() -> bool:
    if not PYTHON.exists():
        return False
    asked = subprocess.run(
        [PYTHON, "-m", "pip", "--version"], capture_output=True, check=False
    )
    return asked.returncode == 0


def fingerprint() -> str:
    """What the environment was made from."""
    digest = hashlib.sha256(f"{ROOT} {node_version()}".encode())
    for file in (LOCK, ROOT / "pyproject.toml", *sorted(PROXY_FILES.glob("*.json"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def make_environment() -> None:
    python = python_for_all()
    print(f"Making the environment {VENV.name} with {python} ...", flush=True)
    if uv := shutil.which("uv"):
        command = [uv, "venv", "--quiet", "--seed", "--python", python, str(VENV)]
    else:
        command = [python, "-m", "venv", str(VENV)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    said = made.stdout + made.stderr
    if "ensurepip" in said:
        stop(
            "This Python cannot make environments. On Debian and Ubuntu:\n"
            "    apt-get install python3-venv\nThen run this again."
        )
    stop(f"The environment could not be made:\n{said}")


def python_for_all() -> str:
    """The Python to build on; as root, one that other accounts can run too.

    Root's own Python (pyenv's, say) lies in a closed folder, and the accounts mode
    starts servers under other accounts.
    """
    own = str(Path(sys.executable).resolve())
    system = "/usr/bin/python3"
    if os.geteuid() != 0 or open_to_all(Path(own)) or not Path(system).exists():
        return own
    probe = "import sys, ensurepip; print(*sys.version_info[:2])"
    told = subprocess.run(
        [system, "-c", probe], capture_output=True, text=True, check=False
    )
    version = tuple(int(part) for part in told.stdout.split())
    return system if version and OLDEST <= version <= NEWEST else own


def open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)


def install() -> None:
    """Install the lock, then the project itself."""
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    total = sum("==" in line for line in LOCK.read_text().splitlines())
    if uv := shutil.which("uv"):
        pip = [uv, "pip", "install", "--python", str(PYTHON)]
    show = Progress("Installing", total)
    command = [*pip, "--require-hashes", "-r", str(LOCK)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        said: list[str] = []
        try:
            for line in process.stdout or ():
                said.append(line)
                show.step(line.startswith(("Collecting", " + ")))
        except Stopped:
            process.terminate()
            raise
    show.end()
    if process.returncode:
        stop("".join(said[-25:]) + "\nThe packages could not be installed; see above.")
    subprocess.run(
        [*pip, "--quiet", "--no-deps", "--no-build-isolation", "-e", "."],
        check=True,
        cwd=ROOT,
    )


def node_version() -> int:
    """The major version of Node, or 0 where there is none with npm."""
    if not shutil.which("node") or not shutil.which("npm"):
        return 0
    told = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=False
    )
    major = told.stdout.strip().lstrip("v").split(".")[0]
    return int(major) if major.isdigit() else 0


def install_proxy() -> None:
    """Install the faster proxy where Node is; the Python one is there in any case."""
    if node_version() < 20:
        print("No Node 20 or newer with npm: the hub uses the slower Python proxy.")
        return
    folder = VENV / "proxy"
    folder.mkdir(exist_ok=True)
    for file in PROXY_FILES.glob("*.json"):
        shutil.copy(file, folder)
    print("Installing the proxy ...", flush=True)
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(folder)
        print("npm could not install the proxy: the hub uses the slower Python one.")


class Progress:
    """A counter on one line of a terminal, or a line now and then elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._terminal = sys.stdout.isatty()

    def step(self, happened: bool) -> None:
        if not happened:
            return
        self._done += 1
        # Packages for other systems are in the lock too: the end is not reached.
        line = f"{self._what} {self._done} of about {self._total} packages"
        if self._terminal:
            print(f"\r{line}", end="", flush=True)
        elif self._done % 50 == 1:
            print(line, flush=True)

    def end(self) -> None:
        if self._terminal:
            print()


# --- run ----------------------------------------------------------------------------


def run(chosen: argparse.Namespace) -> int:
    environment = os.environ | {
        "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    }
    if home := chosen.home or os.environ.get("THEATRUM_HOME"):
        # What we start has another working directory than this shell.
        environment["THEATRUM_HOME"] = str(Path(home).expanduser().absolute())
    if chosen.port is not None:
        environment["THEATRUM_PORT"] = str(chosen.port)
    if chosen.no_demo:
        environment["THEATRUM_DEMO"] = "false"
    settings = read_settings(environment)
    with hold(Path(settings["home"])):
        environment["THEATRUM_INSTANCE"] = settings["instance"]
        sweep(settings["home"], spare_people=True)
        check_port(settings["bind"], settings["port"])
        if settings["demo"]:
            built = call([PYTHON, "-m", "services.demo"], environment)
            if built:
                return built
        return Hub(environment, settings).run()


@contextmanager
def hold(home: Path) -> Iterator[None]:
    """Hold an installation, so that nobody starts it a second time beside us."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stop(f"{home} is running already: stop it first, or choose another --home.")
        yield


def sweep(home: str, *, spare_people: bool) -> None:
    """End what is left of an installation; Ctrl-C does not reach this."""
    command = [str(PYTHON), "-m", "hub.leftovers", home]
    if spare_people:
        command.append("--spare-people")
    subprocess.call(command, cwd=ROOT, start_new_session=True)


def call(command: Sequence[str | Path], environment: dict[str, str]) -> int:
    """Run a command of ours to its end, or end it when we are to stop."""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True
    ) as process:
        try:
            return process.wait()
        except Stopped:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            raise


def read_settings(environment: dict[str, str]) -> dict[str, Any]:
    """The settings as the project itself reads them; a wrong one ends the start."""
    told = subprocess.run(
        [PYTHON, "-m", "hub.settings"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if told.returncode:
        raise SystemExit(told.returncode)
    settings: dict[str, Any] = json.loads(told.stdout)
    return settings


def check_port(bind: str, port: int) -> None:
    if not taken(bind, port):
        return
    free = next((one for one in range(port + 1, 65536) if not taken(bind, one)), None)
    advice = f"\n    python3 run.py --port {free}" if free else ""
    stop(f"Port {port} is taken by another program. The next free one:{advice}")


def taken(bind: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as err:
            if err.errno == errno.EADDRINUSE:
                return True
            why = (err.strerror or str(err)).lower()
            stop(f"Nothing can listen on {bind}, port {port}: {why}. Change either.")
    return False


class Hub:
    """The hub's process, from its start until nothing of it is left."""

    def __init__(self, environment: dict[str, str], settings: dict[str, Any]) -> None:
        self._environment = environment
        self._settings = settings
        self._home = Path(settings["home"])
        self._log = self._home / "logs" / "hub.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_stop = False
        bind = settings["bind"]
        host = "127.0.0.1" if bind in {"0.0.0.0", "::"} else bind  # noqa: S104
        self._url = f"http://{host}:{settings['port']}{settings['base_url']}"

    def run(self) -> int:
        began = time.monotonic()
        try:
            self._start()
            if not self._wait_until_ready():
                return 1
            self._greet(time.monotonic() - began)
            return self._wait_for_end()
        except Stopped:
            self._asked_to_stop = True
            return 0
        finally:
            ignore_signals()
            self._end()

    def _start(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(mode=0o700, exist_ok=True)
        print(f"Starting the hub (log: {self._log}) ...", flush=True)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as log:
            self._process = subprocess.Popen(
                [PYTHON, "-m", "jupyterhub", "-f", ROOT / "jupyterhub_config.py"],
                env=self._environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                # Ctrl-C comes to us alone, and we stop the hub in order.
                start_new_session=True,
                preexec_fn=default_signals,
            )

    def _wait_until_ready(self) -> bool:
        waited_for = ["hub/health", *self._service_pages()]
        limit = time.monotonic() + START_LIMIT_S
        while waited_for:
            if self._process is None or self._process.poll() is not None:
                return self._fail("The hub ended while it started.")
            if time.monotonic() > limit:
                return self._fail(f"{waited_for[0]} did not answer in time.")
            if answers(self._url + waited_for[0]):
                waited_for.pop(0)
            else:
                time.sleep(0.25)
        return True

    def _service_pages(self) -> list[str]:
        found = (file.parent.name for file in self._course_files())
        courses = sorted(name for name in found if not name.startswith("."))
        names = ["tiles/health", "catalog/health", "courses/health", "voila/", *courses]
        return [f"services/{name}" for name in names]

    def _course_files(self) -> list[Path]:
        return list((self._home / "courses").glob("*/course.toml"))

    def _fail(self, why: str) -> bool:
        tail = self._log.read_text("utf-8", "replace").splitlines()[-25:]
        print("\n".join(tail), file=sys.stderr)
        print(f"{why} The whole log is {self._log}.", file=sys.stderr)
        return False

    def _greet(self, spent_s: float) -> None:
        print(f"The hub is up after {spent_s:.1f} s. Ctrl-C stops it.")
        accounts = self._home / "demo-accounts.json"
        if self._settings["mode"] == "demo":
            print(f"Accounts (also in {accounts.name} of the home):")
            for name, password in json.loads(accounts.read_text()).items():
                print(f"    {name:12} {password}")
            print("Demo mode: one system account, people are not isolated.")
        else:
            print(f"The accounts and their passwords are in {accounts}.")
        print(f"ready {self._url}", flush=True)

    def _wait_for_end(self) -> int:
        if self._process is None:
            return 1
        code = self._process.wait()
        print(f"The hub ended by itself ({code}); see {self._log}.", file=sys.stderr)
        return 1

    def _end(self) -> None:
        """Stop the hub, then whatever outlived it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            print("Stopping ...", flush=True)
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(HUB_STOP_LIMIT_S)
        if self._process.poll() is None:
            self._process.kill()
        # A hub that died leaves people's servers for the next one to take up again.
        sweep(str(self._home), spare_people=not self._asked_to_stop)


class Stopped(BaseException):
    """We were asked to stop. Not an Exception, so that nothing takes it for a fault."""


def on_signal(_number: int, _frame: FrameType | None) -> NoReturn:
    """Stop in order, once: a second Ctrl-C must not break that off."""
    ignore_signals()
    raise Stopped


def ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def default_signals() -> None:
    """Let Ctrl-C and termination work in a child of a shell's background job.

    A shell starts background jobs with SIGINT ignored; all children inherit that, and
    the hub then waits in vain, half a minute for each service, for them to stop.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def answers(url: str) -> bool:
    """Whether a page is there, be it only to send us to the sign-in."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())
    try:
        opener.open(url, timeout=2).close()
    except urllib.error.HTTPError as err:
        return err.code not in NOT_YET
    except OSError:
        return False
    return True


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer."""

    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        return None


if __name__ == "__main__":
    sys.exit(main())
