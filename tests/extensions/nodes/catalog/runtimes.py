"""Container runtimes for the tests: Podman where it runs, and a double of Docker.

Podman gets a store of its own and an image made of the host's static busybox. The
strict double is a program called `docker` that takes exactly the command line that it
should get, and then really runs the image's program in a process of the host, its
folders in place of those of the container.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

APP = """#!/bin/sh
# A BIDS app: copies the participant's images, and says what it was asked.
set -e
echo "asked: $*"
[ "$3" = participant ] && [ "$4" = --participant-label ] && [ -d "$1/sub-$5" ]
cat "$1/dataset_description.json" "$1/participants.tsv"
mkdir -p "$2/sub-$5/anat"
for one in "$1/sub-$5"/anat/*.nii.gz; do
  name=$(basename "$one" .nii.gz)
  cp "$one" "$2/sub-$5/anat/${name%_*}_desc-copy_${name##*_}.nii.gz"
done
echo '{"Name": "copy", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}' \\
  > "$2/dataset_description.json"
"""
_TOOLS = (
    "sh cat ls cp id mkdir echo sleep head tail wc ip basename touch ln gunzip test"
)
_PLAIN = "localhost/theatrum-test-plain"
_BIDS = "localhost/theatrum-test-bids"

DOUBLE = """
import json, os, re, signal, subprocess, sys
from pathlib import Path

home = Path(__file__).parent
words = sys.argv[1:]


def refuse(why):
    print(f"docker: {why}", file=sys.stderr)
    raise SystemExit(125)


if words == ["info"]:
    raise SystemExit(0)
if words[:2] == ["rm", "--force"]:
    raise SystemExit(0)
if words[:1] == ["kill"]:
    mark = home / f"{words[1]}.pid"
    if mark.exists():
        os.killpg(int(mark.read_text()), signal.SIGKILL)
    raise SystemExit(0)
if words[:1] != ["run"]:
    refuse(f"unknown command {words[:1]}")
flags, single, several, at = set(), {}, {"--env": [], "--mount": []}, 1
while words[at].startswith("-"):
    if words[at] in ("--rm", "--read-only"):
        flags.add(words[at])
        at += 1
        continue
    if words[at] in several:
        several[words[at]].append(words[at + 1])
    else:
        single[words[at]] = words[at + 1]
    at += 2
image, command = words[at], words[at + 1 :]
name = single.pop("--name")
memory = int(single.pop("--memory"))
cpus = float(single.pop("--cpus"))
user = single.pop("--user")
if single != {
    "--network": "none", "--cap-drop": "ALL", "--security-opt": "no-new-privileges",
    "--pids-limit": "1024", "--workdir": "/work",
} or flags != {"--rm", "--read-only"}:
    refuse(f"not as it should be: {single} {flags}")
if user.startswith("0:") or memory < 1_000_000 or cpus <= 0:
    refuse("root, or no limits")
known = json.loads((home / "images.json").read_text())
if image not in known:
    refuse(f"no image {image}")
places = {}
for one in several["--mount"]:
    said = dict(part.partition("=")[::2] for part in one.split(","))
    if said.pop("type") != "bind":
        refuse("no bind")
    source, target = said.pop("source"), said.pop("target")
    if said != ({"readonly": ""} if target == "/in" else {}):
        refuse(f"{target} is mounted as {said}")
    places[target] = source
if set(places) != {"/in", "/out", "/work"}:
    refuse(f"mounts are {sorted(places)}")


def mapped(word):
    for target, source in places.items():
        if word == target or word.startswith(f"{target}/"):
            return source + word[len(target):]
        word = re.sub(f"(?<= ){target}(?=[/ ]|$)", source, word)
    return word


environment = {"PATH": "/usr/bin:/bin"}
environment |= dict(one.partition("=")[::2] for one in several["--env"])
environment = {key: mapped(value) for key, value in environment.items()}
process = subprocess.Popen(
    [*known[image], *map(mapped, command)],
    cwd=places["/work"], env=environment, start_new_session=True,
)
mark = home / f"{name}.pid"
mark.write_text(str(process.pid))
try:
    code = process.wait()
finally:
    mark.unlink()
raise SystemExit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True)
class Runtime:
    """A runtime on PATH, with two images."""

    program: str
    real: bool
    folder: Path
    plain: str
    """By digest: an image without a program of its own."""
    bids: str
    """By digest: the BIDS app."""

    def left(self) -> list[str]:
        """Containers that are still there."""
        if not self.real:
            return [one.name for one in (self.folder / "bin").glob("*.pid")]
        listed = _podman("ps", "--all", "--format", "{{.Names}}")
        return [one for one in listed.split() if one.startswith("theatrum-")]


def double(folder: Path) -> Runtime:
    """A strict double of Docker in `folder/bin`; put that on PATH alone."""
    place = folder / "bin"
    place.mkdir()
    script = place / "double.py"
    script.write_text(DOUBLE)
    docker = place / "docker"
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    docker.chmod(0o755)
    app = place / "app"
    app.write_text(APP)
    app.chmod(0o755)
    plain, bids = (f"tools/{name}@sha256:{name[0] * 64}" for name in ("a", "b"))
    (place / "images.json").write_text(json.dumps({plain: [], bids: [str(app)]}))
    return Runtime("docker", False, folder, plain, bids)


def podman(folder: Path, environment: dict[str, str]) -> Runtime | str:
    """Podman with a store of its own; why not, where it does not run here.

    `environment` gets what its programs have to be told.
    """
    busybox = shutil.which("busybox")
    if shutil.which("podman") is None or busybox is None:
        return "podman or busybox is not installed (podman, runc, busybox-static)"
    if (
        b"statically"
        not in subprocess.run(
            ["/usr/bin/env", "sh", "-c", f"ldd {busybox} 2>&1 || echo statically"],
            capture_output=True,
            check=False,
        ).stdout
        and b"not a dynamic"
        not in subprocess.run(["ldd", busybox], capture_output=True, check=False).stderr
    ):
        return "busybox is not static (busybox-static)"
    store = folder / "storage.conf"
    store.write_text(
        "[storage]\n"
        'driver = "vfs"\n'
        f'graphroot = "{folder / "store"}"\n'
        f'runroot = "{folder / "run"}"\n'
    )
    settings = folder / "containers.conf"
    runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
    settings.write_text(
        "[containers]\n"
        'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n{runtime}'
    )
    environment["CONTAINERS_STORAGE_CONF"] = str(store)
    environment["CONTAINERS_CONF"] = str(settings)
    os.environ.update(environment)
    try:
        plain = _imported(folder, busybox, _PLAIN, [])
        bids = _imported(folder, busybox, _BIDS, ['ENTRYPOINT ["/bin/app"]'])
        _podman("run", "--rm", "--network", "none", "--memory", "64m", plain, "id")
    except subprocess.CalledProcessError as error:
        return f"podman does not run here: {error.stderr[-300:]}"
    return Runtime("podman", True, folder, plain, bids)


def _imported(folder: Path, busybox: str, name: str, changes: list[str]) -> str:
    """Make an image of the host's busybox; returns its id, which is its digest."""
    root = folder / "root"
    (root / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    for tool in _TOOLS.split():
        link = root / "bin" / tool
        link.unlink(missing_ok=True)
        link.symlink_to("busybox")
    (root / "bin" / "app").write_text(APP)
    (root / "bin" / "app").chmod(0o755)
    for place in ("in", "out", "work", "tmp", "proc", "sys", "dev", "etc"):
        (root / place).mkdir(exist_ok=True)
    archive = folder / "root.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(root, arcname=".", filter=_open_to_all)
    words = [word for change in changes for word in ("--change", change)]
    _podman("import", *words, str(archive), name)
    found = _podman("image", "inspect", "--format", "{{.Id}}", name).strip()
    return f"sha256:{found.removeprefix('sha256:')}"


def _open_to_all(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """As images are, whatever the mask of this process is: its user is not root."""
    member.mode = 0o755
    return member


def _podman(*words: str) -> str:
    return subprocess.run(
        ["podman", *words],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
        cwd=os.environ["CONTAINERS_CONF"].rpartition("/")[0],
    ).stdout
