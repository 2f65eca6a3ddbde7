"""Runs in Slurm jobs: arrays, submission through submitit, the states of jobs, and what a job does."""
