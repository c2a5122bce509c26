# Shared by the launch scripts.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of the scripts

dry_run=false
settings='' switches='' # not whatever the environment calls so

# Reads --SETTING=VALUE for each of the names in $settings, and --SWITCH for each of those in $switches, into variables
# of their names; --dry-run into dry_run, and what follows -- into the array rest. --help prints $usage.
read_arguments() {
  local _argument _key
  rest=()
  while (($#)); do
    _argument="$1" _key="${1#--}"
    _key="${_key%%=*}"
    shift
    case "$_argument" in
      --) rest=("$@") && return ;;
      --help) echo "$usage" && exit 0 ;;
      --dry-run) dry_run=true ;;
      --*=*)
        [[ " $settings " == *" $_key "* ]] || fail "unknown argument $_argument; $usage"
        printf -v "$_key" %s "${_argument#*=}"
        ;;
      *)
        [[ "$_argument" == --* && " $switches " == *" $_key "* ]] || fail "unknown argument $_argument; $usage"
        printf -v "$_key" true
        ;;
    esac
  done
}

# Fails where a setting of the verb is empty.
needs() {
  local _setting
  for _setting in "$@"; do
    [[ -n "${!_setting}" ]] || fail "--$_setting is missing for $verb; $usage"
  done
}

# Runs a command, or with --dry-run prints it, quoted so that it can be pasted.
run() {
  if [[ "$dry_run" == true ]]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# Waits until a child is really gone, also where a trap interrupts the wait, and puts its exit status into status.
wait_for() {
  status=0
  wait "$1" || status=$?
  while kill -0 "$1" 2>/dev/null; do
    status=0
    wait "$1" || status=$?
  done
  status=0 # once more: where it ended while a trap ran, the wait before told of the signal
  wait "$1" || status=$?
}

fail() {
  echo "error: $*" >&2
  exit 2
}
