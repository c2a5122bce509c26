#!/usr/bin/env bash
# Runs a command again for as long as it says that the same command resumes it:
#
#   launch/resume.sh craft-jax tune --config=demo --workdir=runs/demo
#
# Exit status 75: it was asked to stop (SIGTERM) and saved a checkpoint, or lost another host. Status 134: JAX itself
# aborted it because another host fell silent. Any other status is passed on. SIGTERM to this script is passed to the
# command, and then nothing is started again: the machine is about to go. Ctrl-C does the same: the command, which bash
# starts deaf to SIGINT, gets SIGTERM, saves, and exits with 75.
#
# MAX_RESTARTS (100) bounds the restarts, RESTART_DELAY (10) is the pause between them in seconds.
# --dry-run as the first argument prints the command instead.
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ "${1:-}" == "--dry-run" ]]; then
  shift
  echo "repeat while the exit status is 75 or 134, at most ${MAX_RESTARTS:-100} times:"
  dry_run=true
  run "$@"
  exit 0
fi
(($# > 0)) || fail "usage: launch/resume.sh [--dry-run] COMMAND ..."

leaving=false
child=
# shellcheck disable=SC2317,SC2329  # the trap calls it
pass_on() {
  leaving=true
  [[ -z "$child" ]] || kill -TERM "$child" 2>/dev/null || true
}
trap pass_on INT TERM

restarts=0 status=75
while [[ "$leaving" == false ]]; do
  "$@" &
  child=$!
  [[ "$leaving" == false ]] || pass_on # the signal came before the child was known
  wait_for "$child"
  child=
  if [[ "$leaving" == true ]] || ((status != 75 && status != 134)); then
    break
  fi
  if ((restarts >= ${MAX_RESTARTS:-100})); then
    echo "resume.sh: stopped with status $status after $restarts restarts" >&2
    break
  fi
  restarts=$((restarts + 1))
  reason="stopped early or lost another host"
  ((status == 75)) || reason="was aborted: another host fell silent"
  echo "resume.sh: the command $reason (status $status); restart $restarts in ${RESTART_DELAY:-10} s" >&2
  sleep "${RESTART_DELAY:-10}" & # a trap waits for a foreground command, but interrupts `wait`
  child=$!
  wait "$child" || true
  child=
done
exit "$status"
