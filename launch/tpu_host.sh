#!/usr/bin/env bash
# What tpu_vm.sh runs on every host of a slice: the main job, resumed while it can be, and on host 0 a copy of the
# workdir in a bucket every minute.
#
#   launch/tpu_host.sh gs://BUCKET/FOLDER|none WORKDIR --config=FILE ...
#
# --dry-run as the first argument prints the commands instead. HOST_NUMBER overrides what the machine says it is.
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(($# >= 3)) || fail "usage: launch/tpu_host.sh [--dry-run] gs://BUCKET/FOLDER|none WORKDIR --config=FILE ..."
bucket="$1" workdir="$2"
shift 2

metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number
number="${HOST_NUMBER:-$(curl --silent --fail --header 'Metadata-Flavor: Google' "$metadata")}"

keep() {
  # A file caught half-written is no harm: a damaged checkpoint falls back to the one before.
  run gcloud storage rsync --recursive "$workdir" "$bucket" || true
}

copier=
if [[ "$number" == 0 && "$bucket" != none ]]; then
  if [[ ! -d "$workdir" ]]; then # a fresh machine; on a restarted one the workdir is newer than the bucket
    run mkdir -p "$workdir"
    if [[ "$dry_run" == true ]] || gcloud storage ls "$bucket" >/dev/null 2>&1; then
      run gcloud storage rsync --recursive "$bucket" "$workdir"
    fi
  fi
  if [[ "$dry_run" == false ]]; then
    (while sleep 60; do keep; done) &
    copier=$!
  fi
fi

run launch/resume.sh .venv/bin/python -m craft_jax.main "--workdir=$workdir" "$@" &
job=$!
trap 'kill -TERM "$job"' TERM
status=0
wait "$job" || status=$?
while kill -0 "$job" 2>/dev/null; do # the trap has interrupted the wait
  status=0
  wait "$job" || status=$?
done
[[ -z "$copier" ]] || kill "$copier"
[[ "$number" != 0 || "$bucket" == none ]] || keep
exit "$status"
