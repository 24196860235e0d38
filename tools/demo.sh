#!/bin/sh
# Shows a film and lets the demo checkpoint describe it: tools/demo.sh [WARD]. `make demo` builds first.
set -eu
cd "$(dirname "$0")/.."
ward=${1:-build/ward}
film=$(ls examples/*.png | head -n 1)

echo "$film"
if [ -t 1 ]; then
    "$ward" preprocess -m models/phantom -i "$film" --draw
fi
echo "A drawing, not a patient. The demo checkpoint is asked: Describe this X-ray."
echo
"$ward" run -m models/phantom -i "$film" --timings "Describe this X-ray."
