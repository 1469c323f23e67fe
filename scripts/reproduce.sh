#!/usr/bin/env bash
# Regenerate the committed reference results, results/<study>[-<data>]/ and results/report.html, and
# the figures, tables and numbers that README.md and docs/ take from them.
# Without a word: every study by the command that its committed results name; those of MNIST and
# CIFAR-10 (JPEG) read them from BNSTUDY_DATA and are left as they are where it is not set.
# With a scale as its first word: all studies at that scale.
source "$(dirname "$0")/setup.sh"

# what a command made, into a folder of results/: a study ends with the paths of its results, since
# other grids and scales may lie beside them
keep() { # the last lines of a study -> results/<folder>, or results/<study> without a name
  sed -n 's|/claims\.json$||p' | while read -r made; do
    folder=results/${1:-$(basename "$(dirname "$made")")}
    mkdir -p "$folder"
    for file in table.csv figure.svg figure.png claims.json study.json; do
      cp "$made/$file" "$folder/$file"
    done
    # not every study has them
    for file in points.csv details.svg details.png registration.json tuning.json failures.csv; do
      rm -f "$folder/$file"
      if [ -e "$made/$file" ]; then cp "$made/$file" "$folder/$file"; fi
    done
  done
}

if [ $# -gt 0 ]; then
  bnstudy study all "scale=$1" </dev/null | tee /dev/stderr | keep
else
  for stated in results/*/study.json; do
    folder=$(basename "$(dirname "$stated")")
    command=$(sed -n 's/^ *"command": "\(bnstudy study .*\)",\{0,1\}$/\1/p' "$stated")
    if [[ $folder == *-* && -z ${BNSTUDY_DATA:-} ]]; then
      echo "results/$folder stays as it is: set BNSTUDY_DATA to the folder of its data" >&2
      continue
    fi
    $command </dev/null | tee /dev/stderr | keep "$folder"
  done
fi
bnstudy report --folder results
python scripts/pages.py
