#!/usr/bin/env bash
# One audit, with its state in $STATE. Writes `exit-code`, `report` and `keep` to $GITHUB_OUTPUT and ends with 0, so that
# the step after it can open an issue; the last step of action.yml ends with the exit code.
#   CONFIG: folder with signwatch.yaml and rules.yaml; FIRST_RUN: `true` to begin.
set -euo pipefail

report="$RUNNER_TEMP/signwatch-report.json"
active="$STATE/config/signwatch.yaml"
database="$STATE/signwatch.db"

# end CODE KEEP [MESSAGE]: a message stands for the report of an audit that did not run.
end() {
  if [ "$#" -gt 2 ]; then
    jq -n --arg verdict "$3" --argjson code "$1" '{exit_code: $code, verdict: $verdict}' > "$report"
  fi
  {
    echo "exit-code=$1"
    echo "keep=$2"
    echo "report=$report"
  } >> "$GITHUB_OUTPUT"
  {
    echo "## Signwatch: exit code $1"
    echo
    # Indented, so that Markdown of a log entry stays text.
    jq . "$report" | head -c 60000 | sed 's/^/    /'
  } >> "${GITHUB_STEP_SUMMARY:-/dev/null}"
  exit 0
}

if [ ! -f "$CONFIG/signwatch.yaml" ]; then
  end 2 false "there is no $CONFIG/signwatch.yaml in this repository"
fi
case "$FIRST_RUN" in
  true)
    if [ -e "$database" ]; then
      end 2 false "first-run is true, but there is a state already: remove first-run from the workflow"
    fi
    ;;
  *)
    # Fails closed: what was signed since the lost state was written would otherwise never be looked at.
    if [ ! -s "$database" ]; then
      end 3 false "the state of the last run is lost (caches that were not used for a week are deleted). What was signed since was not looked at. Run the workflow once by hand with first-run, then look up your names since the last run that succeeded."
    fi
    ;;
esac

# The newest configuration of the repository, beside the state that its relative paths name.
rm -rf "$STATE/config"
mkdir -p "$STATE"
cp -r "$CONFIG" "$STATE/config"
if [ "$(sed -n 's/^database: *//p' "$active")" != "../signwatch.db" ]; then
  end 2 false "$CONFIG/signwatch.yaml: write \`database: ../signwatch.db\`, so that the state is kept between runs"
fi

code=0
if [ "$FIRST_RUN" = true ]; then
  signwatch init --config "$active" > "$RUNNER_TEMP/signwatch-init.txt" 2>&1 || code=$?
  cat "$RUNNER_TEMP/signwatch-init.txt"
  if [ "$code" -ne 0 ]; then
    end "$code" false "signwatch init: $(tail -n 5 "$RUNNER_TEMP/signwatch-init.txt")"
  fi
fi
signwatch audit --config "$active" --json > "$report" || code=$?
if ! jq -e .verdict "$report" > /dev/null; then
  end 3 false "signwatch audit ended with exit code $code and without a report"
fi
# An outage is no reason to forget what was proven before it: each batch was committed whole.
end "$code" true
