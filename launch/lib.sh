# Shared by the launch scripts: `run` runs a command, or with --dry-run prints it, quoted so that it can be pasted.
# shellcheck shell=bash

dry_run=false

run() {
  if [[ "$dry_run" == true ]]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

fail() {
  echo "error: $*" >&2
  exit 2
}
