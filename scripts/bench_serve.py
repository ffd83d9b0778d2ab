"""What `edgetl serve` adds to the predictor, as ratios; all of them are measured in turn.

python scripts/bench_serve.py exported/pets photos/
python scripts/bench_serve.py exported/pets photos/ \\
    --other mlserver=PID=http://127.0.0.1:8080/v2/models/pets/infer

It needs wrk. In-process is `Predictor.batch` in this program, on the same photos and cores. The
figures of a round come one after the other, so that other programs disturb them alike; what is
printed are medians over the rounds. Processor time is that of server and predictor, without wrk;
on a busy machine it says more than the rate, of which more processes get a larger share.
`--other` measures another server that speaks the Open Inference Protocol, with photos as base64 in
an input "image".
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from edgetl import Predictor
from edgetl.runtime.images.discovery import find_images
from edgetl.system.machine import cores, processor

SECONDS = 5.0  # of each measurement
ROUNDS = 5
LOAD = 0.7  # of the highest rate, at which latencies are measured
LATENCY_ROUNDS = 15
PACED = 8  # connections that send at that load, each at equal intervals
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}

# Sends the bodies in turn, beginning where each thread chooses; ``pause`` milliseconds apart.
LUA = """
local folder, kind, pause = os.getenv("BODIES"), os.getenv("KIND"), tonumber(os.getenv("PAUSE"))
local requests, next_one = {}, 0
function init(args)
  math.randomseed(os.time() + tonumber(tostring({}):match("0x(%x+)"), 16) % 100000)
  for name in io.popen("ls " .. folder):lines() do
    local file = io.open(folder .. "/" .. name, "rb")
    local headers = {["Content-Type"] = kind}
    requests[#requests + 1] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
  next_one = math.random(#requests)
end
function request()
  next_one = next_one % #requests + 1
  return requests[next_one]
end
if pause > 0 then
  function delay() return math.floor(pause) end
end
"""


class Load(NamedTuple):
    """What wrk found. Latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    failed: int


def wrk(url: str, bodies: Path, kind: str, connections: int, pause: float = 0.0) -> Load:
    script = bodies.parent / "requests.lua"
    script.write_text(LUA)
    environment = {"BODIES": str(bodies), "KIND": kind, "PAUSE": str(pause)}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS:g}s", "--latency", "--timeout=30s"]
    done = subprocess.run(
        [*command, "-s", str(script), url],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    shares = {
        share: float(value) * UNITS[unit]
        for share, value, unit in re.findall(r"^ +(50|99)% +([\d.]+)(us|ms|s)", done.stdout, re.M)
    }
    rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    failed = re.findall(r"(?:Non-2xx or 3xx responses: |timeout |read |write )(\d+)", done.stdout)
    assert rate is not None, done.stdout + done.stderr
    return Load(float(rate[1]), shares["50"], shares["99"], sum(map(int, failed)))


def in_process(predictor: Predictor, photos: Sequence[bytes]) -> tuple[float, float]:
    """Photos a second through ``Predictor.batch``, and seconds of processor time for each."""
    start, used, count = time.perf_counter(), time.process_time(), 0
    for _ in predictor.batch(until(start + SECONDS, cycle(photos))):
        count += 1
    return count / (time.perf_counter() - start), (time.process_time() - used) / count


def until(end: float, photos: Iterable[bytes]) -> Iterator[bytes]:
    for photo in photos:
        if time.perf_counter() > end:
            return
        yield photo


def one_by_one(predictor: Predictor, port: int, photos: Sequence[bytes]) -> tuple[float, float]:
    """Milliseconds of a photo in-process, and over one connection of Python's own client.

    They are measured in turn; a photo's figure is the minimum of its rounds.
    """
    connection = HTTPConnection("127.0.0.1", port)

    def posted(photo: bytes) -> None:
        connection.request("POST", "/predict", photo, {"Content-Type": "image/jpeg"})
        assert connection.getresponse().read().startswith(b'{"source"')

    fastest = {use: [math.inf] * len(photos) for use in (predictor, posted)}
    for _ in range(LATENCY_ROUNDS):
        for index, photo in enumerate(photos):
            for use, times in fastest.items():
                start = time.perf_counter()
                use(photo)
                times[index] = min(times[index], 1000 * (time.perf_counter() - start))
    alone, served = (statistics.mean(times) for times in fastest.values())
    return alone, served


@contextmanager
def running(bundle: Path) -> Iterator[tuple[str, int]]:
    """The address and the process of ``edgetl serve``."""
    command = [sys.executable, "-m", "edgetl", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().rpartition(" ")[2].strip().rstrip("/"), process.pid
        process.terminate()


def processor_seconds(process: int) -> float:
    """Of a process and the processes that it started (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    children = [child for task in tasks for child in task.read_text().split()]
    return own + sum(processor_seconds(int(child)) for child in children)


def measured(
    url: str, process: int, bodies: Path, kind: str, connections: int
) -> tuple[Load, float]:
    """What wrk found, and seconds of ``process``'s processor time for each photo."""
    before = processor_seconds(process)
    load = wrk(url, bodies, kind, connections)
    return load, (processor_seconds(process) - before) / (load.rate * SECONDS)


def measure(bundle: Path, photos: Sequence[bytes], folder: Path, others: dict[str, str]) -> None:
    bodies, protocol = folder / "photos", folder / "protocol"
    for place in (bodies, protocol):
        place.mkdir()
    for number, photo in enumerate(photos):
        (bodies / f"{number:05}").write_bytes(photo)
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
        text = {"inputs": [{**tensor, "data": [base64.b64encode(photo).decode()]}]}
        (protocol / f"{number:05}").write_text(json.dumps(text))
    many, single = Predictor(bundle), Predictor(bundle, threads=1)
    list(many.batch(photos[:8]))
    rows: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    with running(bundle) as (address, process):
        url, connections = f"{address}/predict", 2 * cores()
        for _ in range(ROUNDS):
            rate, seconds = in_process(many, photos)
            load, used = measured(url, process, bodies, "image/jpeg", connections)
            add("in-process: photos a second", rate)
            add("served: photos a second", load.rate)
            add("served / in-process", load.rate / rate)
            add("served / in-process, processor time of a photo", used / seconds)
            busy = 1.3 * 1000 * cores() / load.rate  # milliseconds that an answer takes, about
            pause = max(1.0, 1000 * PACED / (LOAD * load.rate) - busy)
            paced = wrk(url, bodies, "image/jpeg", PACED, pause)
            add("under load: photos a second / highest", paced.rate / load.rate)
            add("under load: p50, ms", paced.p50)
            add("under load: p99 / p50", paced.p99 / paced.p50)
            add("failed", load.failed + paced.failed)
            own = {"/v2": f"{process}={address}/v2/models/{bundle.name}/infer"}
            for name, other in (own | others).items():
                of, there = other.split("=", 1)
                found, used = measured(there, int(of), protocol, "application/json", connections)
                add(f"{name} / in-process", found.rate / rate)
                add(f"{name} / in-process, processor time of a photo", used / seconds)
                add(f"{name}: failed", found.failed)
        alone, served = one_by_one(single, int(address.rpartition(":")[2]), photos[:20])
        add("one at a time, in-process: ms", alone)
        add("one at a time, served: ms more", served - alone)
    for name, values in rows.items():
        low, high = min(values), max(values)
        print(f"{name:<50} {statistics.median(values):8.2f}   {low:.2f} to {high:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--other", action="append", default=[], metavar="NAME=PID=URL")
    arguments = parser.parse_args()
    photos = [file.read_bytes() for file in islice(find_images(arguments.photos), 200)]
    print(f"{processor()}, {cores()} cores; {ROUNDS} rounds of {SECONDS:g} s each")
    with tempfile.TemporaryDirectory() as folder:
        others = dict(other.split("=", 1) for other in arguments.other)
        measure(arguments.bundle, photos, Path(folder), others)


if __name__ == "__main__":
    main()
