#!/usr/bin/env python3
"""Where the time of a GPU goes, kernel by kernel: runs a command under Nsight Compute's ncu, which
times every launch by itself, and sums up what has the same name, and with --grids the same grid.

    tests/bench/kernels.py --launches 3500 build/release/tutti bench --shape ... --seconds 0

Launches are timed one after the other, so gaps between kernels and what overlaps are not in it."""
import argparse
import collections
import csv
import os
import subprocess
import sys
import tempfile

MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3, "us": 1, "usecond": 1, "ms": 1e3, "msecond": 1e3}


def measure(command, launches, skip):
    with tempfile.NamedTemporaryFile(suffix=".csv") as log:
        subprocess.run(
            ["ncu", "--clock-control", "none", "--cache-control", "none", "--csv", "--log-file", log.name,
             "--metrics", "gpu__time_duration.sum", "--launch-skip", str(skip), "--launch-count",
             str(launches), "--kill", "yes", *command],
            stdout=subprocess.DEVNULL, check=False)
        lines = [line for line in open(log.name) if line.startswith('"')]
    if not lines:
        sys.exit("ncu wrote no figures")
    return list(csv.DictReader(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launches", type=int, default=4000)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--grids", action="store_true")
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    sums = collections.defaultdict(lambda: [0, 0.0])
    for row in measure(args.command, args.launches, args.skip):
        name = row["Kernel Name"].replace("<unnamed>::", "").replace("(anonymous namespace)::", "")
        key = name[:56] + (" " + row["Grid Size"] if args.grids else "")
        value = float(row["Metric Value"].replace(",", "")) * MICROSECONDS[row["Metric Unit"]]
        sums[key][0] += 1
        sums[key][1] += value
    total = sum(time for _, time in sums.values())
    print(f"{total / 1e3:10.2f} ms in all, {os.path.basename(args.command[0])}")
    for key, (n, time) in sorted(sums.items(), key=lambda item: -item[1][1])[:args.top]:
        print(f"{time / 1e3:10.2f} ms {n:6d} x {time / n:9.1f} us  {key}")


if __name__ == "__main__":
    main()
