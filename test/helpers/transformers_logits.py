"""python transformers_logits.py JOBS: the logits [T, V] of sequences in float32, by transformers (and peft).

JOBS is a JSON file: a list of {"model": DIR, "adapter": DIR or null, "ids": [...], "out": FILE}. Fails where a parameter of a model has no
tensor in the checkpoint, or a tensor no parameter. Exit code 3: a package is missing.
"""

import json
import sys

try:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    print(missing, file=sys.stderr)
    sys.exit(3)

torch.set_num_threads(1)
with open(sys.argv[1], encoding="utf-8") as f:
    jobs = json.load(f)
for job in jobs:
    model, info = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, output_loading_info=True)
    wrong = {key: sorted(map(str, names)) for key, names in info.items() if names}
    assert not wrong, (job["model"], wrong)
    if job["adapter"]:
        model = PeftModel.from_pretrained(model, job["adapter"])
    with torch.no_grad():
        logits = model(torch.tensor([job["ids"]])).logits[0]
    logits.contiguous().numpy().astype("<f4").tofile(job["out"])
