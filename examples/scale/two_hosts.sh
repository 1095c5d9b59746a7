#!/bin/sh
# One run over several hosts, one call on each:
#   HOSTS=2 HOST=0 FIRST=10.0.0.1 GPUS=8 sh examples/scale/two_hosts.sh --config run.yaml
#   HOSTS=2 HOST=1 FIRST=10.0.0.1 GPUS=8 sh examples/scale/two_hosts.sh --config run.yaml
# HOST counts from 0; FIRST is the address of host 0, where PORT must be free; GPUS is the number
# of processes on this host. The data and the run folder lie in a folder that all hosts see.
set -eu
exec torchrun --nnodes "$HOSTS" --node-rank "$HOST" --nproc-per-node "${GPUS:-1}" \
    --master-addr "$FIRST" --master-port "${PORT:-29500}" \
    -m selfie_adapters train "$@"
