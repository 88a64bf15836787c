#!/usr/bin/env bash
# tokenizer.json is a whole tokenizer: normalizer, pre-tokenizer, vocabulary, post-processor. The `tokenizers` library
# does what it says. AutoTokenizer of transformers 5 does so for some families only. For a BERT it takes the vocabulary
# out of the file, builds the rest anew from tokenizer_config.json and the defaults of its class, and says nothing. A file
# whose normalizer folds digits to 0 loses that rule; one that does not lower-case is lower-cased. Ids, and so the
# answers of a model trained with the file, differ between the two libraries, and saving with save_pretrained writes the
# rebuilt tokenizer over the original. Only the class name PreTrainedTokenizerFast in tokenizer_config.json has the file read.
# Seen with transformers 5.23.0 and tokenizers 0.23.3. Exits with 1 if transformers behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==5.23.0" "tokenizers==0.23.3"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import json
import sys
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "order", "Order", "0", "7", "##0", "##7"]
made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
made.normalizer = normalizers.Replace(Regex("[0-9]"), "0")  # every digit is a 0; case stays
made.pre_tokenizer = pre_tokenizers.Whitespace()
model = Path("model")
model.mkdir()
made.save(str(model / "tokenizer.json"))
(model / "config.json").write_text(json.dumps({"model_type": "bert"}))


def list_tokens(settings):
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(model).backend_tokenizer.encode(
        "Order 7", add_special_tokens=False
    ).tokens


found = {
    "tokenizers": Tokenizer.from_file(str(model / "tokenizer.json")).encode("Order 7").tokens,
    "AutoTokenizer": list_tokens({"unk_token": "[UNK]"}),
    "with the general class": list_tokens(
        {"unk_token": "[UNK]", "tokenizer_class": "PreTrainedTokenizerFast"}
    ),
}
print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}")
for name, tokens in found.items():
    print(f"{name:<24} {tokens}")
expected = {
    "tokenizers": ["Order", "0"],
    "AutoTokenizer": ["order", "7"],
    "with the general class": ["Order", "0"],
}
sys.exit(found != expected)
PYTHON
