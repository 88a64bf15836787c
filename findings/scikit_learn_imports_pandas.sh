#!/usr/bin/env bash
# scikit-learn does not need pandas, and its documents list it for examples only. Still, every import of it imports all of
# pandas where that happens to be installed: sklearn/utils/fixes.py, which the first `import sklearn.<anything>` runs, asks for
# the version of pandas by importing it. Nothing of the program needs to use a data frame. A program that counts words
# waits for pandas' readers of files; uninstalling pandas, which changes no result, makes it start sooner.
# Seen with scikit-learn 1.9.1 and pandas 3.1.1 on Python 3.11: 1,443 modules with pandas installed, 1,121 without, and a
# fifth of the CPU seconds is its share. Exits with 1 if scikit-learn behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "scikit-learn==1.9.1" "pandas==3.1.1"
cat > "$folder/count.py" <<'PYTHON'
import statistics
import subprocess
import sys

CODE = """
import sys, time
begin = time.process_time()
from sklearn.feature_extraction.text import TfidfVectorizer
TfidfVectorizer().fit(["a text", "another text"])
print(time.process_time() - begin, int("pandas" in sys.modules), len(sys.modules))
"""
rows = []
for _ in range(5):
    command = [sys.executable, "-c", CODE]
    rows.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
seconds = statistics.median(float(row[0]) for row in rows)
print(f"pandas imported: {rows[0][1]}  modules: {rows[0][2]}  {seconds:.2f} CPU s (median of 5)")
sys.exit(rows[0][1] != sys.argv[1])
PYTHON
"$folder/venv/bin/python" -c 'import importlib.metadata as m; print("scikit-learn", m.version("scikit-learn"), "pandas", m.version("pandas"))'
"$folder/venv/bin/python" "$folder/count.py" 1
"$folder/venv/bin/pip" uninstall --quiet --yes pandas
"$folder/venv/bin/python" "$folder/count.py" 0
