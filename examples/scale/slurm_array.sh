#!/bin/sh
#SBATCH --job-name=selfie
#SBATCH --array=0-5
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
# Six runs, one a task: three seeds of two kinds. A task that is requeued resumes where it stopped.
#   CONFIG=run.yaml RUNS=runs sbatch examples/scale/slurm_array.sh
set -eu
seed=$((SLURM_ARRAY_TASK_ID / 2))
kind=$([ $((SLURM_ARRAY_TASK_ID % 2)) = 0 ] && echo scalar_affine || echo full_rank)
name="$kind-seed$seed"
if [ -e "$RUNS/$name/config.yaml" ]; then
    exec python -m selfie_adapters train --resume "$RUNS/$name"
fi
exec python -m selfie_adapters train --config "$CONFIG" --set "seed=$seed" \
    --set "projection.type=$kind" --set "experiment_name=$name" --set "training.checkpoint_dir=$RUNS"
