#!/usr/bin/env bash
# Opens an issue for an audit that did not end with 0, or adds a comment to the open one of the same kind.
#   CODE, REPORT, LABEL, RUN_URL, GH_TOKEN: see action.yml.
set -euo pipefail

case "$CODE" in
  1) title="Signwatch: a log misbehaved or something unexpected was signed" ;;
  2) title="Signwatch: the configuration of the audit is wrong" ;;
  *) title="Signwatch: the audit could not finish" ;;
esac

body="$RUNNER_TEMP/signwatch-issue.md"
{
  echo "The audit ended with exit code $CODE: $RUN_URL"
  echo
  # What a log entry says stays text: an indented block has no links, no mentions and no end inside it.
  jq -r '.verdict, (.logs // [] | .[] | select(.trouble != null or (.findings.unexpected // 0) > 0) |
    "\(.log): \(.findings.unexpected // 0) unexpected; \(.trouble // "no trouble"): \(.detail // "")"),
    (.open_evidence // [] | .[] | "open evidence: \(tojson)")' "$REPORT" |
    tr -d '\r' | head -c 30000 | sed 's/^/    /'
  echo
  echo "What to do: docs/exit-codes.md and docs/alerts/ of Signwatch. The whole report is in the run's summary."
} > "$body"

gh label create "$LABEL" --description "Opened by Signwatch's audit" --force > /dev/null
# By label and exact title: an issue that a stranger opened under the same title has no such label.
number="$(gh issue list --label "$LABEL" --state open --limit 100 --json number,title |
  jq -r --arg title "$title" 'map(select(.title == $title)) | .[0].number // empty')"
if [ -n "$number" ]; then
  gh issue comment "$number" --body-file "$body"
else
  gh issue create --title "$title" --label "$LABEL" --body-file "$body"
fi
