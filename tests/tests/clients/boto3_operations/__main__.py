"""boto3, unmodified, against a real broker: every stream operation once with success, once with each kind of error that
it has, and every member of its shapes.

Usage: boto3_operations ENDPOINT LIMITED_ENDPOINT KEY_ID. The second is a broker with the limits of AWS; KEY_ID names a
key that the first has for encryption. Exits with 0 only if everything was as it should be.
"""

import sys
import time
import traceback

import boto3

import account
import consumers
import members
import policies
import records
import settings
import shards
import streams
import tags
from support import Kinesis

ROOMS = [streams, shards, records, consumers, settings, tags, policies, account]


def checks(room):
    """Functions of a module whose names begin with `check_`, in their order."""
    found = [(name, value) for name, value in vars(room).items() if name.startswith("check_")]
    return [(f"{room.__name__}.{name}", check) for name, check in found]


def main():
    endpoint, limited, key_id = sys.argv[1:4]
    only = sys.argv[4] if len(sys.argv) > 4 else ""
    started, seen, failed = time.monotonic(), set(), []
    kinesis = Kinesis(endpoint, seen)
    kinesis.limited, kinesis.key_id = Kinesis(limited, seen), key_id
    wanted = [(name, check) for room in ROOMS for name, check in checks(room) if only in name]
    for name, check in wanted:
        try:
            check(kinesis)
        except Exception:  # each check is told of, not only the first that fails
            failed.append(name)
            print(f"--- {name}\n{traceback.format_exc()}", flush=True)
    if not only:
        for problem in members.problems(kinesis):
            failed.append(problem)
            print(f"--- {problem}", flush=True)
    took = time.monotonic() - started
    print(f"boto3 {boto3.__version__}: {len(wanted)} checks of operations, {len(failed)} failed, {took:.1f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
