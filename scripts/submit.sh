#!/usr/bin/env bash
# Runs a dream-ray command as a job on a Ray cluster, shows its log and ends with its exit code; Ctrl-C stops the job.
#
#   scripts/submit.sh distill --preset cifar10-ipc10 --store s3://bucket/store --out s3://bucket/run --workers 8
#
# The job runs in a copy of this repository, so what was changed here is what runs there.
#
#   RAY_API_SERVER_ADDRESS  the dashboard of the cluster; http://127.0.0.1:8265, which `ray dashboard cluster.yaml` opens
#   SUBMIT_ENV              names of variables that the job gets from this shell, such as "AWS_ENDPOINT_URL AWS_REGION".
#                           The dashboard shows them: keys and tokens belong to the nodes (docs/how-to/run-on-a-cluster.md)
#   SUBMIT_ID               name of the job; by default it is made of the command and the time
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

if [[ $# -eq 0 ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/submit.sh >&2
    exit 2
fi
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
unset RAY_ADDRESS # of the cluster itself, which is reached through its dashboard
export RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES='' # ours are below; Ray would warn of its own
python=.venv/bin/python
[[ -x $python ]] || bash scripts/setup.sh
ray=(.venv/bin/ray job)
id=${SUBMIT_ID:-dream-ray-$1-$(date +%Y%m%d-%H%M%S)-$$}

# Ray copies at most 512 MiB: what is large stays here, and so does what only matters here.
send() {
    "$python" - "$id" "$@" <<'EOF'
import os, shlex, signal, sys
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

EXCLUDES = [".git", ".venv", ".*_cache", ".hypothesis", "*.egg-info", "__pycache__", "/build", "/data", "/dist",
            "/runs", "/stores", "/venv", "/tests", "/benchmarks/results", "*.parquet", "*.arrow"]
ATTEMPTS = 12  # of ten seconds: a head node that has just started, or is busy, takes no jobs for a while

signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback: `stop` answers
job, *command = sys.argv[1:]
passed_on = os.environ.get("SUBMIT_ENV", "").split()
if missing := [name for name in passed_on if name not in os.environ]:
    sys.exit(f"submit: SUBMIT_ENV names {', '.join(missing)}, which this shell does not have")
# `ray job stop` is then the Ctrl-C of a terminal, and the command has time to save.
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

# That of the command; Ray's own commands say 1 for every failure, and 0 for a job that was stopped.
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
        print("submit: the log was cut off; the job goes on, and its end is waited for", file=sys.stderr)
    while not info.status.is_terminal():
        time.sleep(1)
        info = client.get_job_info(sys.argv[1])
except (ConnectionError, RuntimeError, RayError) as error:  # not reached, not known, no token
    sys.exit(f"submit: nothing is known of job {sys.argv[1]}: {error}")
print(f"submit: job {sys.argv[1]} {info.status}", file=sys.stderr)
sys.exit(0 if info.status == "SUCCEEDED" else info.driver_exit_code or 1)
EOF
}

stop() {
    trap 'end 130' INT TERM # the next one waits no more
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
# In the background, so that a signal is answered at once.
"${ray[@]}" logs --follow "$id" --log-style record &
following=$!
wait "$following" || true
exit_code &
following=$!
wait "$following"
