#!/usr/bin/env bash
# Regenerate the committed reference results, results/<study>/ and results/report.html, and the
# figures, tables and numbers that README.md and docs/ take from them.
# Takes the scale as its first word (default: quick).
source "$(dirname "$0")/setup.sh"
scale=${1:-quick}

# a study ends with the paths of its results: other grids and scales may lie beside them
folders=$(bnstudy study all "scale=$scale" | tee /dev/stderr | sed -n 's|/claims\.json$||p')
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
