#!/usr/bin/env bash
# Regenerate the committed reference results, results/<study>/ and results/report.html, and the
# figures, tables and numbers that README.md and docs/ take from them.
# Without a word: every study by the command that its committed results name. With a scale as its
# first word: all studies at that scale.
source "$(dirname "$0")/setup.sh"

commands() {
  if [ $# -gt 0 ]; then
    echo "bnstudy study all scale=$1"
  else
    sed -n 's/^ *"command": "\(bnstudy study .*\)",\{0,1\}$/\1/p' results/*/study.json
  fi
}

# a study ends with the paths of its results: other grids and scales may lie beside them
folders=$(commands "$@" | while read -r command; do $command </dev/null || exit; done |
  tee /dev/stderr | sed -n 's|/claims\.json$||p')
while read -r folder; do
  study=$(basename "$(dirname "$folder")")
  mkdir -p "results/$study"
  for file in table.csv figure.svg figure.png claims.json study.json; do
    cp "$folder/$file" "results/$study/$file"
  done
  # not every study has them
  for file in points.csv details.svg details.png registration.json tuning.json failures.csv; do
    rm -f "results/$study/$file"
    if [ -e "$folder/$file" ]; then cp "$folder/$file" "results/$study/$file"; fi
  done
done <<<"$folders"
bnstudy report --folder results
python scripts/pages.py
