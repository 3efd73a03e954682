# shellcheck shell=sh disable=SC2016
# The baseline of the benchmark's demo: a command in the place of an agent. It has no model and does half of the task.
git ls-files | cut -s -d/ -f1 | sort -u | sed 's/.*/| `&\/` | ? |/' | tee TOUR.md
