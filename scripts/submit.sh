#!/usr/bin/env bash
# Runs a dream-ray command as a job on a Ray cluster, shows its log and ends with its exit code; Ctrl-C stops the job.
#
#   scripts/submit.sh distill --preset cifar10-ipc10 --store s3://bucket/store --out s3://bucket/run --workers 8
#
# The job runs in a copy of this repository, with your local changes.
#
#   RAY_API_SERVER_ADDRESS  the dashboard of the cluster; default http://127.0.0.1:8265 (`ray dashboard cluster.yaml`)
#   SUBMIT_ENV              names of variables of this shell to pass to the job, such as "AWS_ENDPOINT_URL AWS_REGION".
#                           The dashboard shows them: set keys and tokens on the nodes (docs/how-to/run-on-a-cluster.md)
#   SUBMIT_ID               name of the job; default: made of the command and the time
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

if [[ $# -eq 0 ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/submit.sh >&2
    exit 2
fi
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
unset RAY_ADDRESS # jobs reach the cluster through its dashboard
export RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES='' # Ray warns about its default excludes; ours are below
python=.venv/bin/python
[[ -x $python ]] || bash scripts/setup.sh
ray=(.venv/bin/ray job)
id=${SUBMIT_ID:-dream-ray-$1-$(date +%Y%m%d-%H%M%S)-$$}

# Ray copies at most 512 MiB, so large files, and files that a job does not need, are excluded.
send() {
    "$python" - "$id" "$@" <<'EOF'
import os, shlex, signal, sys
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

EXCLUDES = [".git", ".venv", ".*_cache", ".hypothesis", "*.egg-info", "__pycache__", "/build", "/data", "/dist",
            "/runs", "/stores", "/venv", "/tests", "/benchmarks/results", "*.parquet", "*.arrow"]
ATTEMPTS = 12  # of ten seconds: a head node that is busy or has just started accepts no jobs for a while

signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback; `stop` below handles Ctrl-C
job, *command = sys.argv[1:]
passed_on = os.environ.get("SUBMIT_ENV", "").split()
if missing := [name for name in passed_on if name not in os.environ]:
    sys.exit(f"submit: SUBMIT_ENV names {', '.join(missing)}, which this shell does not have")
# With these, `ray job stop` acts like Ctrl-C, and the command has time to write a checkpoint.
stopping = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
variables = stopping | {name: os.environ[name] for name in passed_on}
environment = {"working_dir": ".", "excludes": EXCLUDES, "env_vars": variables}
entrypoint = shlex.join(["python", "-m", "dream_ray", *command])
for left in reversed(range(ATTEMPTS)):
    try:
        JobSubmissionClient().submit_job(entrypoint=entrypoint, submission_id=job, runtime_env=environment)
        break
    except (ConnectionError, RuntimeError, RayError) as error:  # not reached, refused, no token
        if not left or "No available agent" not in str(error):
            sys.exit(f"submit: job {job} was not submitted: {error}")
        print("submit: the cluster takes no jobs yet", file=sys.stderr)
EOF
}

# Exits with the exit code of the command. Ray's own commands exit with 1 for every failure, and 0 for a stopped job.
exit_code() {
    "$python" - "$id" <<'EOF'
import signal, sys, time
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    client = JobSubmissionClient()
    info = client.get_job_info(sys.argv[1])
    if not info.status.is_terminal():
        print("submit: the log was cut off; the job continues; waiting for its end", file=sys.stderr)
    while not info.status.is_terminal():
        time.sleep(1)
        info = client.get_job_info(sys.argv[1])
except (ConnectionError, RuntimeError, RayError) as error:  # not reached, not known, no token
    sys.exit(f"submit: job {sys.argv[1]} cannot be looked up: {error}")
print(f"submit: job {sys.argv[1]} {info.status}", file=sys.stderr)
sys.exit(0 if info.status == "SUCCEEDED" else info.driver_exit_code or 1)
EOF
}

stop() {
    trap 'end 130' INT TERM # a second Ctrl-C does not wait
    echo "submit: stopping job $id" >&2
    "${ray[@]}" stop "$id" >&2 &
    wait $! || true
    end 130
}

end() {
    [[ -z $following ]] || kill "$following" 2>/dev/null || true
    exit "$1"
}

trap stop INT TERM
following=
send "$@"
# In the background, so that signals are handled at once.
"${ray[@]}" logs --follow "$id" --log-style record &
following=$!
wait "$following" || true
exit_code &
following=$!
wait "$following"
