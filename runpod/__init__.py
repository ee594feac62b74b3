"""vggt_quant on RunPod: image template, pod settings, prices, and a client for RunPod's REST API v2.

Run it from a checkout; it needs Python 3.11 and nothing else:

    export RUNPOD_API_KEY=...
    python -m runpod template apply --image ghcr.io/you/vggt_quant:0.1.0
    python -m runpod volume create
    python -m runpod gpus
    python -m runpod pod up --dry-run
    python -m runpod pod up --env VGGT_VARIANTS=bf16,int8_symmetric --secret HF_TOKEN=hf_token
    python -m runpod status
    python -m runpod logs --follow
    python -m runpod down

template.json is the request that makes the template, in RunPod's own fields; put the owner of your image in the place
of OWNER there, or give --image each time. pod.json says what to rent; client/settings.py explains its keys. prices.json
serves estimates only. `--dry-run` shows what a command would send and what that costs, needs no key, contacts nobody.

It is no relative of the package of that name on PyPI, which speaks to the older GraphQL interface.
"""
