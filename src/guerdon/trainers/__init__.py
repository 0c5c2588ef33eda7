"""One module per trainer: what its configuration names, and what it calls.

Import the module of the trainer (`guerdon.trainers.verl`, `guerdon.trainers.trl`); none of them
imports the trainer. Shared by all: `plan` (what a user names as a reward), `no_score` (trainers
that want a number for every sample), `micro_batch` (trainers that ask for one sample at a time),
`component` (names to report under).
"""
