#!/bin/sh
# From nothing to a model and its adapters: each stage that is not done yet, in turn. Safe to start again at any
# time, as long as only one runs: every stage goes on where it was.
#   MINUTES=240 nohup setsid training/run_all.sh &        logs in training/runs/*.log
# Where PRIORITY is set (-20 .. 0, root only) the whole session gets it: a desktop or a shared
# machine divides its cores among sessions first, so that plain nice says nothing to the others.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
runs=training/runs
parts=$runs/parts
mkdir -p "$runs"
if [ -n "${PRIORITY:-}" ]; then echo "$PRIORITY" > /proc/self/autogroup; fi

stage() { # name of the log, module, arguments
    log=$runs/$1.log
    shift
    echo "$(date -u '+%F %T') $*"
    echo "== $(date -u '+%F %T') $*" >> "$log"
    "$python" -u -m "$@" >> "$log" 2>&1
}

stage dataset training.dataset --split unseen --count 1000
stage dataset training.dataset --count "${PICTURES:-48000}"
[ -e $parts/tokenizer ] || stage text training.tokenizer
[ -e $parts/text_encoder_2 ] || stage text training.text --minutes "${TEXT_MINUTES:-11}"
[ -e $parts/vae ] || stage autoencoder training.autoencoder --minutes "${VAE_MINUTES:-20}" ${VAE_FLAGS:-}
stage diffusion training.diffusion --minutes "${MINUTES:-90}" ${UNET_FLAGS:-}
stage export training.export
stage style training.style --minutes "${STYLE_MINUTES:-10}"
stage lcm training.consistency --minutes "${LCM_MINUTES:-25}"
stage edges training.edges --minutes "${EDGES_MINUTES:-30}"
stage adapters training.adapters
